"""The C++ programs with their engines pass the kits of the files that they run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nanodet_d2.conformance import write_kit
from tests.cpp.programs import SOURCES, detect_all, judge, run

pytestmark = pytest.mark.slow

CASES = [
    *(("openvino", "openvino", kind) for kind in ("raw", "decoded")),
    ("ncnn", "ncnn", "raw"),
    *(("onnxruntime", "onnx", kind) for kind in ("raw", "decoded")),
    *(("libtorch", "torchscript", kind) for kind in ("raw", "decoded")),
]


@pytest.fixture(scope="module")
def programs(tmp_path_factory) -> tuple[Path, str]:
    """The folder of the programs, and what was said when they were built."""
    folder = tmp_path_factory.mktemp("programs")
    command = [sys.executable, str(SOURCES / "build.py"), "--output", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    said = done.stdout + done.stderr
    if done.returncode == 2:
        pytest.skip(said.strip())
    assert done.returncode == 0, said
    return folder, said


@pytest.fixture
def program(programs, request):
    def find(engine: str) -> Path:
        folder, said = programs
        path = folder / f"nanodet_{engine}"
        if not os.access(path, os.X_OK):
            (why,) = [x for x in said.splitlines() if x.startswith(f"{engine}: left out")]
            pytest.skip(why)
        return path

    return find


@pytest.mark.parametrize("engine, format, kind", CASES)
def test_it_passes_the_kit(program, small_models, tmp_path, engine, format, kind):
    executable, model = program(engine), small_models.file(format, kind=kind)
    kit = write_kit(model, tmp_path / "kit")
    pictures = detect_all(executable, model, kit, ["--stages", tmp_path, "--threads", "1"])
    report = judge(kit, pictures, tmp_path)
    assert report.same, report.sentence
    assert list(report.checked) == ["tensor", "raw", "boxes"]
    assert all(len(x["boxes"]) > 5 for x in pictures.values())


@pytest.mark.parametrize("engine", sorted({case[0] for case in CASES}))
def test_a_file_that_is_no_model(program, small_models, tmp_path, engine):
    format = dict(case[:2] for case in CASES)[engine]
    kit = write_kit(small_models.file(format), tmp_path / "kit")
    broken = tmp_path / "broken.param"
    broken.write_bytes(b"no model")
    done = run(program(engine), broken, kit / "contract.json", kit / "picture_0.ppm")
    assert done.returncode in (1, 2) and not done.stdout
    assert done.stderr.splitlines()[-1:]
