"""The environment's report and self-check; and what an environment without detectron2 says."""

from __future__ import annotations

import pytest
import torch

import nanodet_d2
from nanodet_d2 import cli, env
from tests.blocking import ROOT, run_without


def read(printed: str) -> dict[str, str]:
    return {line[:32].strip(): line[33:] for line in printed.splitlines()}


def test_report_and_self_check(capsys):
    assert cli.main(["env"]) == 0
    report = read(capsys.readouterr().out)
    assert torch.__version__.startswith(report["torch"].partition("+")[0])
    assert nanodet_d2.__version__ in report["nanodet_d2"] and "cores" in report["device"]
    assert report["detectron2's operators"] in ("compiled", "Python only")
    assert {"onnxruntime (optional)", "pnnx (optional)", "detectron2", "numpy"} <= report.keys()
    assert "a training step" in report["self-check, cpu"]
    assert float(report["self-check took"].split()[0]) >= 0


def test_versions_of_what_is_not_there_or_nameless(monkeypatch, tmp_path):
    assert env.version("no_such_module", ("no-such-package",)) == "-"
    (tmp_path / "nameless_module.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert env.version("nameless_module", ("no-such-package",)) == "there, of unknown version"
    program = tmp_path / "no_such_module"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert env.version("no_such_module", ("no-such-package",)) == f"program {program}"


def test_a_failed_self_check_is_reported(monkeypatch, capsys):
    def broken(self):
        with torch.no_grad():
            for p in self.head.parameters():
                p.add_(0.1)

    monkeypatch.setattr(env.NanoDetPlus, "fuse", broken)
    assert cli.main(["env"]) == 1
    assert "FAILED on cpu: RuntimeError: scores fused differ by" in capsys.readouterr().out


REPORT = """
from nanodet_d2.cli import main
sys.exit(main(["env", *sys.argv[1:]]))
"""


@pytest.mark.parametrize(
    "missing",
    [pytest.param(("detectron2",), marks=pytest.mark.slow), ("torch", "torchvision", "detectron2")],
)
def test_the_report_alone_needs_neither(missing):
    done = run_without(missing, REPORT)
    report = read(done.stdout)
    assert done.returncode == 1
    assert report["detectron2"].startswith(
        "not installed: all of nanodet_d2 but nanodet_d2.runtime"
    )
    installer = ROOT / "nanodet_d2" / "get_detectron2.py"
    assert f"run `python {installer}`" in report["detectron2"]
    assert ("install torch" in report["detectron2"]) == ("torch" in missing)
    if "torch" not in missing:
        assert torch.__version__.startswith(report["torch"].partition("+")[0])
    else:
        assert report["torch"] == "-"
    assert report["self-check"] == "not run" and "Python" in report
    assert "Traceback" not in done.stderr


def test_other_verbs_say_what_is_missing_in_one_line():
    done = run_without(("detectron2",), REPORT.replace('"env"', '"doctor", "a.json"'))
    assert done.returncode == 1 and not done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("nanodet-d2 doctor: all of nanodet_d2 but nanodet_d2.runtime needs")
