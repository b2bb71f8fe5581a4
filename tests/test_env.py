"""The environment's report and self-check; and what an environment without detectron2 says."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

import nanodet_d2
from nanodet_d2 import env


def test_report_and_self_check(capsys):
    assert env.main() == 0
    lines = capsys.readouterr().out.splitlines()
    report = {line[:32].strip(): line[33:] for line in lines}
    assert torch.__version__.startswith(report["torch"].partition("+")[0])
    assert nanodet_d2.__version__ in report["nanodet_d2"] and "cores" in report["device"]
    assert report["detectron2's operators"] in ("compiled", "Python only")
    assert {"onnxruntime (optional)", "pnnx (optional)", "detectron2", "numpy"} <= report.keys()
    assert "a training step" in report["self-check"]
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
    assert env.main() == 1
    assert "FAILED on cpu: RuntimeError: scores fused differ by" in capsys.readouterr().out


HIDDEN = """
import runpy, sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name == "detectron2":
            raise ModuleNotFoundError("No module named 'detectron2'", name="detectron2")

sys.meta_path.insert(0, Hidden())
runpy.run_module("nanodet_d2.env")
"""


def test_without_detectron2_the_last_line_says_how_to_get_it(root):
    done = subprocess.run(
        [sys.executable, "-c", HIDDEN],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    installer = root / "nanodet_d2" / "get_detectron2.py"
    assert last.startswith("ImportError: nanodet_d2 needs detectron2") and str(installer) in last


NOT_FOUND = """
from importlib.machinery import PathFinder

find_spec = PathFinder.find_spec
PathFinder.find_spec = lambda name, *args: None if name == "detectron2" else find_spec(name, *args)
"""


@pytest.mark.skipif(sys.version_info < (3, 10), reason="Python 3.9 does not tell what -m is for")
@pytest.mark.parametrize("module", ["env", "doctor"])
def test_the_report_alone_needs_no_detectron2(root, tmp_path, module):
    (tmp_path / "sitecustomize.py").write_text(NOT_FOUND)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", f"nanodet_d2.{module}"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(root)])},
    )
    assert done.returncode == 1
    if module == "env":
        report = {line[:32].strip(): line[33:] for line in done.stdout.splitlines()}
        assert report["detectron2"].startswith("not installed: nanodet_d2 needs detectron2")
        assert torch.__version__.startswith(report["torch"].partition("+")[0])
        assert report["self-check"] == "not run" and "Python" in report
        assert "Traceback" not in done.stderr
    else:
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith("ImportError: nanodet_d2 needs detectron2") and not done.stdout
