"""On a device: the wheel without its dependencies, NumPy, OpenCV and ONNX Runtime, no more."""

from __future__ import annotations

import json
import sys

import cv2
import numpy as np
import pytest

from nanodet_d2.data.shapes import draw_picture
from nanodet_d2.runtime import Detector
from tests.wheels import ROOT, Environment

NEEDED = ("numpy", "opencv-python-headless", "onnxruntime")
MAX_MB = 2  # of the package in the environment, without compiled files

DETECT = """
import json, sys
from nanodet_d2.runtime import Detector

found = Detector(sys.argv[1], num_threads=1)(sys.argv[2])
try:
    import nanodet_d2.engine
except ImportError as error:
    told = str(error)
print(json.dumps({
    "boxes": found.xyxy.tolist(), "scores": found.confidence.tolist(),
    "classes": found.class_id.tolist(), "told": told,
    "there": sorted({"torch", "detectron2", "PIL", "matplotlib"} & set(sys.modules)),
}))
"""


@pytest.fixture(scope="module")
def device(wheel, tmp_path_factory) -> Environment:
    environment = Environment(tmp_path_factory.mktemp("device") / "env")
    versions = ROOT / ".ci" / "constraints.txt"  # those of the tests
    done = environment.install("--constraint", str(versions), *NEEDED)
    if done.returncode:
        pytest.skip(f"pip cannot download {', '.join(NEEDED)}: {done.stderr.strip()[-300:]}")
    done = environment.install("--no-deps", "--no-index", str(wheel))
    assert done.returncode == 0, done.stderr
    return environment


def megabytes(environment: Environment, *patterns: str) -> float:
    files = {x for pattern in patterns for x in environment.site.rglob(pattern) if x.is_file()}
    return sum(x.stat().st_size for x in files if x.suffix != ".pyc") / 1e6


@pytest.mark.slow
def test_same_boxes_in_an_empty_environment(device, small_models, tmp_path, capsys):
    path, picture = small_models.file("onnx"), tmp_path / "shapes.png"
    cv2.imwrite(str(picture), draw_picture(0, "val", 0, 120)[0][:100])
    done = device.run("python", "-c", DETECT, str(path), str(picture), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found, expected = json.loads(done.stdout), Detector(path, num_threads=1)(picture)
    assert len(expected) > 5 and found["there"] == []
    assert found["classes"] == expected.class_id.tolist()
    np.testing.assert_allclose(found["boxes"], expected.xyxy, atol=1e-3)
    np.testing.assert_allclose(found["scores"], expected.confidence, atol=1e-5)
    assert found["told"].startswith("all of nanodet_d2 but nanodet_d2.runtime needs torch and")

    arguments = ["predict", str(path), str(picture), "--threshold", "0.05", "--json"]
    done = device.run("nanodet-d2", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["detections"] == len(expected)

    own, whole = megabytes(device, "nanodet_d2*/**/*"), megabytes(device, "*")
    with capsys.disabled():
        sys.stdout.write(f"\nthe wheel, installed: {own:.2f} MB; with what it needs: {whole:.0f}\n")
    assert 0.1 < own < MAX_MB
