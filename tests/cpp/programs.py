"""Builds the C++ programs and runs them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from nanodet_d2.conformance import Kit, Report, check, read_kit, read_result

SOURCES = Path(__file__).resolve().parents[2] / "projects" / "nanodet_plus" / "cpp"
COMPILER = os.environ.get("CXX", "c++")
WARNINGS = ("-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g")


def compile_replay(folder: Path, *flags: str) -> Path:
    """The program without an engine; skips where there is no compiler."""
    if shutil.which(COMPILER) is None:
        pytest.skip(f"there is no {COMPILER}")
    program = folder / "nanodet_replay"
    command = [COMPILER, "-std=c++17", *WARNINGS, *flags, "nanodet_replay.cpp", "-o", str(program)]
    done = subprocess.run(command, cwd=SOURCES, capture_output=True, text=True)
    if "cannot find" in done.stderr and "san" in done.stderr:
        pytest.skip(f"{COMPILER} has no sanitizers here")
    assert done.returncode == 0, done.stderr
    return program


def run(program: Path, *arguments: str | Path) -> subprocess.CompletedProcess:
    command = [str(program), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=120)


def write_outputs(kit: Path, picture: str, folder: Path) -> Path:
    """The raw outputs of a kit's picture as the replay reads them."""
    outputs = json.loads((kit / "contract.json").read_text())["outputs"]
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(outputs):
        np.load(kit / f"{picture}.raw.{name}.npy").astype("<f4").tofile(folder / f"{i}.bin")
    return folder


def judge(kit_folder: Path, pictures: dict[str, dict], folder: Path) -> Report:
    """What the check says of a program's results, whose files are in the folder."""
    kit: Kit = read_kit(kit_folder)
    path = folder / "result.json"
    path.write_text(json.dumps({"pictures": pictures}))
    return check(kit, read_result(path, kit.metadata, [x.name for x in kit.pictures]))


def pictures_of(done: subprocess.CompletedProcess) -> dict[str, dict]:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["pictures"]


def detect_all(program: Path, model: Path, kit: Path, options: Sequence[str] = ()) -> dict:
    """A program's results for all pictures of a kit."""
    return pictures_of(
        run(program, model, kit / "contract.json", *sorted(kit.glob("*.ppm")), *options)
    )
