"""Environments of converters: what is made, what is said when it cannot be, and what runs there."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import logging
import sys
import zipfile

import pytest

from nanodet_d2.export.formats import formats
from nanodet_d2.export.isolated import Environment, run_in
from nanodet_d2.export.job import check_job

TRIAL = Environment("trial", ("trial-package==1.0",), python=(3, 9), gigabytes=0.1)
PIP_WITHOUT_NETWORK = """
print("Collecting trial-package==1.0")
print("WARNING: Retrying after connection broken by 'NewConnectionError(...)'")
print("ERROR: Could not find a version that satisfies trial-package==1.0 (from versions: none)")
print("ERROR: No matching distribution found for trial-package==1.0")
sys.exit(1)
"""
PIP_WITHOUT_SPACE = "print('ERROR: [Errno 28] No space left on device'); sys.exit(1)"
PIP = "print('Collecting trial-package==1.0'); print('Installing collected packages: trial')"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache folder of the user."""
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def interpreter(monkeypatch):
    """Environments whose interpreter is a program of the test; each that was made is counted."""
    made = []

    def use(program: str) -> list[Environment]:
        def make(self):
            made.append(self)
            self.interpreter.parent.mkdir(parents=True, exist_ok=True)
            self.interpreter.write_text(f"#!{sys.executable}\nimport sys\n{program}\n")
            self.interpreter.chmod(0o755)

        monkeypatch.setattr(Environment, "_make_venv", make)
        return made

    return use


@pytest.mark.parametrize(
    "pip, words",
    [
        (PIP_WITHOUT_NETWORK, ["no package index can be reached", "No matching distribution"]),
        (PIP_WITHOUT_SPACE, ["trial: its environment cannot be made: [Errno 28] No space left"]),
    ],
)
def test_one_that_cannot_be_made_says_why_in_a_line_and_is_made_again(interpreter, pip, words):
    made = interpreter(pip)
    for _ in range(2):
        with pytest.raises(ValueError) as error:
            TRIAL.make()
        assert all(word in str(error.value) for word in words)
        assert "\n" not in str(error.value)
        assert not TRIAL.ready
    assert len(made) == 2


def test_it_is_made_once_and_what_is_done_is_said(interpreter, cache, caplog, capfd):
    made = interpreter(PIP)
    with caplog.at_level(logging.INFO, logger="nanodet_d2"):
        TRIAL.make()
        TRIAL.make()
    assert len(made) == 1 and TRIAL.ready
    assert TRIAL.folder.is_relative_to(cache)
    assert caplog.text.count("making an environment of its own, once, of 0.1 GB") == 1
    assert "1/1" in capfd.readouterr().err  # the bar counts packages


def test_other_versions_have_another_folder():
    other = dataclasses.replace(TRIAL, requirements=("trial-package==1.1",))
    assert other.folder != TRIAL.folder and other.folder.parent == TRIAL.folder.parent


def test_an_old_python_and_a_python_without_venv_are_told(monkeypatch):
    with pytest.raises(ValueError, match=r"trial: its converter needs Python 9.1, found 3\.\d+"):
        dataclasses.replace(TRIAL, python=(9, 1)).make()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ValueError, match="/bin/false cannot make virtual env.*python3-venv"):
        TRIAL.make()


def test_a_program_that_fails_is_told_by_its_last_line(tmp_path):
    program = tmp_path / "broken.py"
    program.write_text("raise RuntimeError('operator x is not known')")
    with pytest.raises(
        ValueError, match="broken: its converter failed: RuntimeError: operator x is not known"
    ):
        run_in(None, program, {})


def test_versions_are_pinned_one_by_one():
    """Nothing is resolved when it is made, so each is named once, with its version."""
    for format in formats().values():
        if format.environment is not None:
            names = [x.split("==")[0].lower() for x in format.environment.requirements]
            assert all(x.count("==") == 1 for x in format.environment.requirements)
            assert len(set(names)) == len(names) and "torch" not in names


def test_a_job_names_what_would_be_installed_and_where(make_job, monkeypatch):
    _, job = make_job(formats=["torchscript"])
    with pytest.raises(ValueError, match="--isolated is not there for torchscript; allowed: lite"):
        check_job(dataclasses.replace(job, isolated=True))
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda x: None if x == "litert_torch" else find(x)
    )
    with pytest.raises(ImportError, match="litert_torch, not installed here: add --isolated.*GB"):
        check_job(dataclasses.replace(job, formats=("litert",)))


PROGRAM = """
import json, sys
request = json.loads(sys.argv[1])
sys.path += request["path"]
import torch, trial_package
with open(request["target"], "w") as file:
    json.dump([trial_package.__file__, torch.__file__, sys.prefix], file)
"""


@pytest.mark.slow
def test_a_real_one_leaves_the_running_one_as_it_is(tmp_path, monkeypatch):
    """Its packages come before those of the running one, which lends it torch."""
    links = tmp_path / "links"
    links.mkdir()
    with zipfile.ZipFile(links / "trial_package-1.0-py3-none-any.whl", "w") as wheel:
        info = "trial_package-1.0.dist-info"
        wheel.writestr("trial_package.py", "")
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: trial-package\nVersion: 1.0"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any")
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    decoy, program, target = tmp_path / "decoy", tmp_path / "program.py", tmp_path / "found.json"
    decoy.mkdir()
    (decoy / "trial_package.py").write_text("raise ImportError")
    monkeypatch.syspath_prepend(str(decoy))
    monkeypatch.setenv("PYTHONPATH", str(decoy))
    program.write_text(PROGRAM)
    run_in(TRIAL, program, {"target": str(target)})
    package, torch_file, prefix = json.loads(target.read_text())
    assert package.startswith(str(TRIAL.folder)) and prefix == str(TRIAL.folder)
    assert torch_file == importlib.util.find_spec("torch").origin
    assert list(tmp_path.rglob("trial_package-1.0.dist-info"))[0].is_relative_to(TRIAL.folder)
    assert "trial_package" not in sys.modules
