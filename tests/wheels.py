"""The project's wheel, and environments that hold nothing but what is put into them."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
BUILD_INPUT = ("setup.py", "pyproject.toml", "LICENSE", "README.md", "nanodet_d2", "configs")
PROJECT_CONFIGS = sorted(ROOT.glob("projects/*/configs"))


def build_wheel(source: Path, folder: Path) -> Path:
    """Build the wheel into a folder; skips where it cannot be built.

    Args:
        source: an empty folder for a copy of the project, because a build leaves folders behind.
    """
    for name in ("pip", "setuptools", "wheel"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"building a wheel needs {name}")
    for name in BUILD_INPUT:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name)
        elif (ROOT / name).exists():
            shutil.copy(ROOT / name, source)
    for configs in PROJECT_CONFIGS:
        shutil.copytree(configs, source / configs.relative_to(ROOT))
    flags = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *flags, str(folder), str(source)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return path


class Environment:
    """A new environment in a folder; it has no pip, and nothing but the standard library."""

    def __init__(self, folder: Path):
        venv.create(folder, with_pip=False)
        self.bin = folder / "bin"
        (self.site,) = (folder / "lib").glob("python*/site-packages")

    def install(self, *arguments: str) -> subprocess.CompletedProcess:
        """``pip install``, by this environment's pip."""
        command = [sys.executable, "-m", "pip", "--python", str(self.bin / "python"), "install"]
        return subprocess.run([*command, *arguments], capture_output=True, text=True)

    def run(self, program: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess:
        """Run a program of it, which finds nothing of the checkout by itself."""
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        command = [str(self.bin / program), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, **options)
