"""The project's wheel, and environments that hold nothing but what is put into them."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

from tests.scripts import load_script

ROOT = Path(__file__).resolve().parents[1]
PROJECT_CONFIGS = sorted(ROOT.glob("projects/*/configs"))
bundle = load_script(ROOT / "projects" / "nanodet_plus" / "offline" / "bundle.py")


def build_wheel(source: Path, folder: Path) -> Path:
    """Build the wheel into a folder; skips where it cannot be built.

    Args:
        source: an empty folder for a copy of the project, because a build leaves folders behind.
    """
    for name in ("pip", "setuptools", "wheel"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"building a wheel needs {name}")
    return bundle.project_wheel(source, folder)


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
