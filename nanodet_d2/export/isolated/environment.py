"""Environments beside the running one, which they leave as it is."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iopath.common.file_io import file_lock, get_cache_dir

from nanodet_d2.runtime.progress import progress

logger = logging.getLogger(__name__)

_READY = ".ready"  # written last
# What pip says where there is no network.
_NO_INDEX = ("NewConnectionError", "NameResolutionError", "ConnectTimeout", "versions: none")


@dataclasses.dataclass(frozen=True)
class Environment:
    """Packages that are installed apart from those of the running interpreter.

    Attributes:
        name: of its folder, and in messages.
        requirements: ``name==version`` of each package; what they ask for is not installed.
        python: the lowest (major, minor) that they are made for.
        gigabytes: that they take.
    """

    name: str
    requirements: tuple[str, ...]
    python: tuple[int, int]
    gigabytes: float

    @property
    def folder(self) -> Path:
        """In the cache where fetched weights are, too. Other versions have another one."""
        facts = [*self.requirements, platform.machine(), *map(str, sys.version_info[:2])]
        key = hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]
        return Path(get_cache_dir(), "nanodet_d2", "environments", f"{self.name}-{key}")

    @property
    def interpreter(self) -> Path:
        return self.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    @property
    def ready(self) -> bool:
        return (self.folder / _READY).is_file() and self.interpreter.is_file()

    def make(self) -> None:
        """Make it unless it is there; takes minutes, and the network.

        Raises:
            ValueError: if it cannot be made; the message tells why in a line.
        """
        if sys.version_info < self.python:
            found, wanted = (".".join(map(str, x)) for x in (sys.version_info[:2], self.python))
            raise ValueError(f"{self.name}: its converter needs Python {wanted}, found {found}")
        with file_lock(str(self.folder)):  # of processes that start together only one makes it
            if self.ready:
                return
            logger.info(
                "%s: making an environment of its own, once, of %.1f GB: %s",
                *(self.name, self.gigabytes, self.folder),
            )
            (self.folder / _READY).unlink(missing_ok=True)
            self._make_venv()
            self._install()
            (self.folder / _READY).touch()

    def _make_venv(self) -> None:
        command = [sys.executable, "-m", "venv", "--clear", str(self.folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            why = _last_line(done.stdout + done.stderr)
            raise ValueError(
                f"{self.name}: {sys.executable} cannot make virtual environments ({why}); on "
                "Debian: apt-get install python3-venv"
            )

    def _install(self) -> None:
        """By the environment's own pip, which takes the user's settings: indices, proxies."""
        command = [str(self.interpreter), "-I", "-m", "pip", "install", "--no-deps"]
        command += ["--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
        command += ["--retries", "2", *self.requirements]
        pip = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        lines = []
        with pip, progress(len(self.requirements), unit="package") as bar:
            assert pip.stdout is not None
            for line in map(str.strip, pip.stdout):
                lines.append(line)
                if line.startswith(("Collecting", "Processing")):
                    bar.update()
                elif line.startswith(("Downloading", "Installing")):
                    bar.set_postfix_str(line[:40])
        if pip.returncode:
            errors = [line for line in lines if line.startswith("ERROR:")] or lines[-1:]
            why = "; ".join(error.removeprefix("ERROR: ") for error in errors)
            if any(sign in line for line in lines for sign in _NO_INDEX):
                why = f"no package index can be reached, or it lacks a package ({why})"
            raise ValueError(f"{self.name}: its environment cannot be made: {why}")


def run_in(environment: Environment | None, program: Path, request: Mapping[str, Any]) -> None:
    """Run a program of this folder, in an environment or by the running interpreter.

    It gets the request as json, and where to find torch, which no environment has: it is that of
    the running interpreter, whatever versions a converter asks for.

    Raises:
        ValueError: if it fails; the message ends as its output did.
    """
    python = Path(sys.executable)
    if environment is not None:
        environment.make()
        python = environment.interpreter
    logger.info("%s: converting, which takes a minute", program.stem)
    text = json.dumps({**request, "path": [os.path.abspath(x) for x in sys.path]})
    # Isolated, as what PYTHONPATH names would come before the environment's own packages.
    command = [str(python), "-I", "-W", "ignore", str(program), text]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise ValueError(f"{program.stem}: its converter failed: {_last_line(done.stderr)}")


def _last_line(text: str) -> str:
    return next((x.strip() for x in reversed(text.splitlines()) if x.strip()), "no word of why")
