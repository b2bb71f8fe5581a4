"""Python processes in which packages seem not to be installed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PREAMBLE = """
import sys
for _name in {names!r}:
    sys.modules[_name] = None  # it is not found, either
"""


def run_without(
    names: Sequence[str], program: str, *arguments: str, **options
) -> subprocess.CompletedProcess:
    """Run a Python program that finds none of these packages; ``options`` of ``subprocess.run``."""
    text = PREAMBLE.format(names=tuple(names)) + program
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", text, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        **options,
    )
