"""get_detectron2.py: order of the sources, checksum, and the wheel it builds. No network."""

import argparse
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.scripts import load_script

SCRIPT = Path(__file__).resolve().parents[1] / "nanodet_d2" / "get_detectron2.py"

# A detectron2 of a few lines, spelt as v0.6 spells what Pillow, NumPy and setuptools dropped.
TINY = {
    "setup.py": "raise SystemExit('the original setup.py must not run')\n",
    "detectron2/__init__.py": '__version__ = "0.6"\n',
    "detectron2/data/__init__.py": (
        "import numpy as np\nfrom PIL import Image\n"
        "def extent(interp=Image.LINEAR): return interp\n"
        "DTYPES = np.int, np.float, np.bool, np.str, np.float64, np.int_\n"
    ),
    "detectron2/model_zoo/__init__.py": (
        "import os\nimport pkg_resources\n"
        "def get_config_file(name):\n"
        "    return pkg_resources.resource_filename(\n"
        '        "detectron2.model_zoo", os.path.join("configs", name)\n'
        "    )\n"
    ),
    "detectron2/model_zoo/configs/common/train.py": "train = dict()\n",
    "detectron2/model_zoo/configs/COCO/a.yaml": "a: 1\n",
    "projects/DeepLab/deeplab/__init__.py": "name = 'deeplab'\n",
}


@pytest.fixture
def tool():
    """The script, loaded by path as it is run, and not as a part of nanodet_d2."""
    return load_script(SCRIPT)


@pytest.fixture
def options():
    return argparse.Namespace(archive=None, skip=[], pip_args=[], replace=False)


@pytest.fixture
def tiny_archive(tmp_path):
    root = tmp_path / "made" / "pb1-detectron2-0.6"
    for name, text in TINY.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    archive = tmp_path / "tiny.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(root, arcname=root.name)
    return archive


def require_build_tools():
    for name in ("pip", "setuptools", "wheel"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"building a wheel needs {name}")


def run_python(code, path, cwd):
    env = {**os.environ, "PYTHONPATH": str(path)}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=env, capture_output=True, text=True
    )


def fail_with(reason, error):
    def source(options, folder):
        raise error(reason)

    return source


def test_imports_only_the_standard_library_and_nothing_of_ours(tmp_path):
    code = (
        "import runpy, sys\n"
        f"runpy.run_path({str(SCRIPT)!r}, run_name='not_main')\n"
        "print([n for n in ('nanodet_d2', 'torch', 'numpy', 'pip') if n in sys.modules])"
    )
    done = run_python(code, "", tmp_path)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


def test_a_wrong_checksum_is_refused_and_both_are_named(tool, tmp_path):
    file = tmp_path / "archive.tar.gz"
    file.write_bytes(b"something else")
    found = hashlib.sha256(b"something else").hexdigest()
    with pytest.raises(tool.UnavailableError) as caught:
        tool.verify_sha256(file, tool.ARCHIVE_SHA256)
    assert found in str(caught.value) and tool.ARCHIVE_SHA256 in str(caught.value)
    tool.verify_sha256(file, found)


def test_a_wrong_archive_is_not_unpacked(tool, options, tiny_archive, tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "with_build_tools", lambda folder: dict(os.environ))
    monkeypatch.setattr(tool, "unpack", lambda *a: pytest.fail("unpacked before the check"))
    options.archive = tiny_archive
    with pytest.raises(tool.UnavailableError, match="sha256"):
        tool.from_archive(options, tmp_path)


def test_the_first_source_that_works_ends_the_search(tool, options, monkeypatch):
    monkeypatch.setattr(tool, "from_installed", lambda options, folder: "0.6 at /somewhere")
    monkeypatch.setattr(tool, "from_git", lambda *a: pytest.fail("went on to Git"))
    monkeypatch.setattr(tool, "from_archive", lambda *a: pytest.fail("went on to the archive"))
    assert tool.get_detectron2(options) == "0.6 at /somewhere"


def test_sources_are_tried_in_order_and_each_reason_is_told(tool, options, monkeypatch, caplog):
    monkeypatch.setattr(tool, "from_installed", fail_with("not there", tool.UnavailableError))
    monkeypatch.setattr(tool, "from_git", fail_with("no route", tool.UnavailableError))
    monkeypatch.setattr(tool, "from_archive", lambda options, folder: "0.6 at /archive")
    with caplog.at_level("INFO", logger="get_detectron2"):
        assert tool.get_detectron2(options) == "0.6 at /archive"
    told = [line for line in caplog.messages if "trying" in line or "moving on" in line]
    assert [("not there" in line, "no route" in line) for line in told] == [
        (False, False),
        (True, False),
        (False, False),
        (False, True),
        (False, False),
    ]
    assert "already imports" in told[0] and "Git" in told[2] and "archive" in told[4]


def test_if_all_fail_the_error_has_every_reason(tool, monkeypatch, caplog):
    for name in ("from_installed", "from_git", "from_archive"):
        monkeypatch.setattr(tool, name, fail_with(f"{name} is broken", tool.UnavailableError))
    assert tool.main([]) == 1
    final = caplog.records[-1].getMessage()
    assert all(f"{name} is broken" in final for name in ("installed", "git", "archive"))


def test_a_skipped_source_is_not_called(tool, monkeypatch):
    monkeypatch.setattr(tool, "from_installed", lambda *a: pytest.fail("was to be skipped"))
    monkeypatch.setattr(tool, "from_git", lambda *a: pytest.fail("was to be skipped"))
    monkeypatch.setattr(tool, "from_archive", lambda options, folder: "0.6 at /archive")
    assert tool.main(["--skip", "installed", "--skip", "git"]) == 0


def test_an_unreachable_repository_is_given_up_in_time(tool, options, tmp_path, monkeypatch):
    git = tmp_path / "git"
    git.write_text("#!/bin/sh\nexec sleep 30\n")
    git.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(tool, "GIT_ANSWER_S", 0.2)
    with pytest.raises(tool.UnavailableError, match=r"no result within 0\.2 s"):
        tool.from_git(options, tmp_path)


def test_without_git_the_repository_is_passed_over(tool, options, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(tool.UnavailableError, match="no git command"):
        tool.from_git(options, tmp_path)


def test_a_build_that_fails_leads_on_to_the_archive(tool, options, monkeypatch, caplog):
    def run(command, **kwargs):
        if "ls-remote" in command:
            return "e0ec4e1 HEAD"
        if command[0] == "/usr/bin/git":
            return tool.GIT_COMMIT
        raise tool.UnavailableError("the compiler found no Python.h")

    monkeypatch.setattr(tool, "run", run)
    monkeypatch.setattr(tool.shutil, "which", lambda name: "/usr/bin/git")
    monkeypatch.setattr(tool, "with_build_tools", lambda folder: {})
    monkeypatch.setattr(tool, "from_archive", lambda options, folder: "0.6 at /archive")
    with caplog.at_level("INFO", logger="get_detectron2"):
        assert tool.get_detectron2(options) == "0.6 at /archive"
    assert any("no Python.h" in line for line in caplog.messages)


@pytest.fixture
def repository(tool, tmp_path, monkeypatch):
    """A Git repository of one commit in the place of the official one; returns the commit's id."""
    git = shutil.which("git") or pytest.skip("needs git")
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "setup.py").write_text("raise SystemExit('must not run before it is verified')\n")
    identity = ["-c", "user.name=A", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "one"]):
        subprocess.run([git, *command], cwd=folder, check=True)
    monkeypatch.setattr(tool, "GIT_URL", str(folder))
    return tool.run([git, "rev-parse", "HEAD"], cwd=folder)


def test_the_commit_is_fetched_and_verified(tool, tmp_path, repository, monkeypatch):
    git, env = shutil.which("git"), dict(os.environ)
    monkeypatch.setattr(tool, "GIT_COMMIT", repository)
    folder = tool.fetch_commit(git, tmp_path / "good", env)
    assert (folder / "setup.py").is_file()

    monkeypatch.setattr(tool, "GIT_COMMIT", "0" * 40)
    with pytest.raises(tool.UnavailableError, match="`git fetch --quiet --depth ...` ended"):
        tool.fetch_commit(git, tmp_path / "absent", env)
    monkeypatch.setattr(tool, "GIT_COMMIT", "HEAD")  # a server that gives what it likes
    with pytest.raises(tool.UnavailableError, match=f"gave commit {repository}, but HEAD is"):
        tool.fetch_commit(git, tmp_path / "other", env)


def test_nothing_of_another_commit_is_run(tool, options, tmp_path, repository, monkeypatch):
    monkeypatch.setattr(tool, "GIT_COMMIT", "HEAD")
    monkeypatch.setattr(tool, "with_build_tools", lambda *a: pytest.fail("built before the check"))
    with pytest.raises(tool.UnavailableError, match="gave commit"):
        tool.from_git(options, tmp_path)


def test_the_build_tools_have_checksums(tool, tmp_path, monkeypatch):
    lines = tool.BUILD_TOOLS.replace("\\\n", "").splitlines()
    pattern = r"(pip|setuptools|wheel)==[\d.]+ +--hash=sha256:[0-9a-f]{64}"
    assert len(lines) == 3 and all(re.fullmatch(pattern, line) for line in lines)
    commands = []
    monkeypatch.setattr(tool, "run", lambda command, **_: commands.append(list(map(str, command))))
    env = tool.with_build_tools(tmp_path)
    assert env["PYTHONPATH"].startswith(str(tmp_path / "tools"))
    (command,) = commands
    assert "--require-hashes" in command
    assert Path(command[command.index("-r") + 1]).read_text() == tool.BUILD_TOOLS


@pytest.fixture
def broken_detectron2(tmp_path, monkeypatch):
    """One that is there and does not import."""
    package = tmp_path / "site" / "detectron2"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('libtorch.so: no such file')\n")
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    return package


def test_a_detectron2_that_does_not_import_is_left_alone(
    tool, monkeypatch, caplog, broken_detectron2
):
    for name in ("from_git", "from_archive"):
        monkeypatch.setattr(tool, name, lambda *a: pytest.fail("would have replaced it"))
    assert tool.main([]) == 1
    final = caplog.records[-1].getMessage()
    assert f"{broken_detectron2}/__init__.py" in final and "--replace" in final
    assert "libtorch.so: no such file" in final

    replaced = []
    monkeypatch.setattr(tool, "from_git", lambda *a: replaced.append(1) or "0.6 at /git")
    assert tool.main(["--replace"]) == 0 and replaced == [1]


def test_where_there_is_none_the_search_goes_on(tool, options, tmp_path, monkeypatch):
    """A folder of that name without a package in it is none."""
    (tmp_path / "detectron2").mkdir()
    empty = "import sys; sys.path[:] = [x for x in sys.path if 'site-packages' not in x]\n"
    monkeypatch.setattr(tool, "FIND", empty + tool.FIND)
    monkeypatch.setattr(tool, "PROBE", "raise ImportError('none')")
    with pytest.raises(tool.UnavailableError, match="does not import: ImportError: none") as error:
        tool.from_installed(options, tmp_path)
    assert type(error.value) is tool.UnavailableError


FAKE_PYTHON = """#!/bin/sh
echo "$*" >> calls.txt
case "$*" in
    *"-m venv"*) mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
esac
"""


def test_the_set_up_replaces_in_its_own_environment_only(tmp_path):
    setup = SCRIPT.parents[1] / ".ci" / "setup"
    for made_by_setup in (True, False):
        folder = tmp_path / str(made_by_setup)
        (folder / ".ci").mkdir(parents=True)
        shutil.copy(setup, folder / ".ci" / "setup")
        base = folder / "base"
        base.write_text(FAKE_PYTHON)
        base.chmod(0o755)
        if not made_by_setup:
            (folder / ".venv" / "bin").mkdir(parents=True)
            shutil.copy(base, folder / ".venv" / "bin" / "python")
        for _ in range(2):  # the second time .venv is there
            (folder / "calls.txt").unlink(missing_ok=True)
            subprocess.run(["sh", ".ci/setup", "./base"], cwd=folder, check=True)
            (call,) = [x for x in (folder / "calls.txt").read_text().splitlines() if "get_d" in x]
            assert ("--replace" in call) == made_by_setup


def test_a_failed_command_tells_its_last_words(tool, tmp_path):
    code = "import sys; print('noise'); sys.exit('the disk is full')"
    with pytest.raises(tool.UnavailableError, match="ended with 1:\n    the disk is full"):
        tool.run([sys.executable, "-c", code], cwd=tmp_path)


@pytest.fixture
def installed_tiny(tool, tiny_archive, tmp_path):
    """The folder into which the wheel of the tiny archive is unpacked."""
    require_build_tools()
    root = tool.unpack(tiny_archive, tmp_path / "source")
    wheel = tool.build_wheel(root, tmp_path / "wheel", dict(os.environ))
    assert wheel.name.startswith("detectron2-0.6+python-py3-none-any")
    flags = ["--no-deps", "--no-index", "--target", str(tmp_path / "site")]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", *flags, str(wheel)], check=True
    )
    return tmp_path / "site"


def test_the_wheel_imports_with_todays_packages(installed_tiny, tmp_path):
    pytest.importorskip("PIL")
    pytest.importorskip("numpy")
    code = (
        "import os, numpy as np\n"
        "from PIL import Image\n"
        "from detectron2 import data, model_zoo\n"
        "from detectron2.projects import deeplab\n"
        "assert data.extent() == Image.BILINEAR\n"
        "assert data.DTYPES == (int, float, bool, str, np.float64, np.int_), data.DTYPES\n"
        "for name in ('COCO/a.yaml', 'common/train.py'):\n"
        "    assert os.path.isfile(model_zoo.get_config_file(name)), name\n"
        "from importlib.metadata import version\n"
        "assert version('detectron2') == '0.6+python'\n"
    )
    done = run_python(code, installed_tiny, tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_stand_in_names_the_missing_operator(installed_tiny, tmp_path):
    code = (
        "from detectron2 import _C\n"
        "assert not hasattr(_C, 'nms_rotated')\n"
        "assert isinstance(_C.get_compiler_version(), str)\n"
        "_C.nms_rotated\n"
    )
    done = run_python(code, installed_tiny, tmp_path)
    last = done.stderr.strip().splitlines()[-1]
    assert "MissingOperatorError" in last and "'nms_rotated'" in last and "git+https" in last
