"""The runtime needs NumPy, OpenCV and an engine: the same detections where nothing else is."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pytest

from nanodet_d2.data.shapes import CLASS_NAMES, draw_picture
from nanodet_d2.importing import missing_sentence
from nanodet_d2.runtime import Detector
from tests.blocking import run_without

BLOCKED = (
    *("torch", "torchvision", "detectron2", "PIL", "matplotlib", "tqdm", "fvcore", "omegaconf"),
    *("iopath", "hydra", "pycocotools", "timm", "cloudpickle", "onnx"),
)

DETECT = """
import json
from pathlib import Path
from nanodet_d2.runtime import Detector
from nanodet_d2.runtime.draw import draw_detections
from nanodet_d2.runtime.images import load_image

model, picture = sys.argv[1:]
detector = Detector(model, num_threads=1)
found = detector(picture)
again, _ = detector([load_image(picture), picture])
assert (again.xyxy == found.xyxy).all()
assert draw_detections(load_image(picture), found).shape == load_image(picture).shape
try:
    found.to_instances()
except ImportError:
    pass
else:
    raise AssertionError("detectron2 is there")
told = []
for name in ("nanodet_d2.engine", "nanodet_d2.modeling", "nanodet_d2.predictor"):
    try:
        __import__(name)
    except ImportError as error:
        told.append(str(error))
print(json.dumps({
    "boxes": found.xyxy.tolist(), "scores": found.confidence.tolist(),
    "classes": found.class_id.tolist(), "names": found.names, "told": told,
}))
"""


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("picture") / "shapes.png"
    cv2.imwrite(str(path), draw_picture(0, "val", 0, 120)[0][:100])
    return path


@pytest.mark.parametrize(
    "format",
    ["onnx", *(pytest.param(x, marks=pytest.mark.slow) for x in ("openvino", "ncnn", "mnn"))],
)
def test_same_detections_without_torch_and_all_else(small_models, picture, format):
    path = small_models.file(format)
    expected = Detector(path, num_threads=1)(picture)
    done = run_without(BLOCKED, DETECT, str(path), str(picture))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(expected) > 5
    assert found["boxes"] == expected.xyxy.tolist()
    assert found["scores"] == expected.confidence.tolist()
    assert found["classes"] == expected.class_id.tolist()
    assert found["names"] == [CLASS_NAMES[i] for i in expected.class_id]
    # What is more than the runtime says what is missing, in one sentence.
    assert len(set(found["told"])) == 1 and len(found["told"]) == 3
    (sentence,) = set(found["told"])
    assert sentence.startswith(
        "all of nanodet_d2 but nanodet_d2.runtime needs torch and detectron2, not installed here: "
        "install torch and torchvision, then run `python "
    )
    assert "get_detectron2.py`" in sentence and "\n" not in sentence


def test_where_all_is_installed_nothing_is_missing():
    assert missing_sentence() == ""


PREDICT = """
from nanodet_d2.cli import main
code = main(["predict", *sys.argv[1:4], "--output", sys.argv[4], "--threshold", "0.05"])
there = {"torch", "detectron2"} & {name for name, module in sys.modules.items() if module}
sys.exit(f"imported {there}" if there else code)
"""


def test_the_command_predicts_without_them(small_models, picture, tmp_path):
    path = small_models.file("onnx")
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(picture, folder / "a.png")
    done = run_without(
        BLOCKED, PREDICT, str(path), str(picture), str(folder), str(tmp_path / "out")
    )
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "out" / "detections.json").read_text())
    expected = Detector(path)(picture)
    assert [x["file_name"] for x in content["images"]] == ["shapes.png", "a.png"]
    assert len(content["annotations"]) == 2 * len(expected)
    scores = [x["score"] for x in content["annotations"][: len(expected)]]
    np.testing.assert_allclose(scores, expected.confidence, atol=1e-4)
    assert cv2.imread(str(tmp_path / "out" / "pictures" / "a.png")).shape == (100, 120, 3)
