"""A training and an evaluation of a folder's data set, whatever its layout."""

from __future__ import annotations

import json

import pytest
from detectron2.config import LazyConfig

from nanodet_d2 import cli
from nanodet_d2.checkpoint import read_card
from nanodet_d2.config import apply_overrides
from nanodet_d2.engine import train
from tests.data import layouts, one_set
from tests.data.one_set import CLASSES
from tests.engine.small_training import FAST

pytestmark = pytest.mark.usefixtures("catalog_as_before")


@pytest.mark.parametrize(
    ("write", "evaluated"),
    [(layouts.voc_devkit, one_set.SPLITS["val"]), (layouts.yolo_undescribed_one_folder, None)],
    ids=["voc_devkit", "yolo_divided"],
)
def test_two_steps_and_an_evaluation(root, tmp_path, write, evaluated):
    path = root / "projects" / "nanodet_plus" / "configs" / "demo_shapes.py"
    overrides = [
        f"data.source={write(tmp_path / 'set')}",
        f"train.output_dir={tmp_path / 'out'}",
        "train.max_iter=2",
    ]
    out = tmp_path / "out"
    results = train(apply_overrides(LazyConfig.load(str(path)), [*FAST, *overrides]))
    assert results["bbox"].keys() >= {"AP", *(f"AP-{name}" for name in CLASSES)}
    card = read_card(str(out / "model_final.pth"))
    assert list(card.class_names) == CLASSES
    detections = json.loads((out / "inference" / "coco_instances_results.json").read_text())
    assert 1 <= len({x["image_id"] for x in detections}) <= (evaluated or 4)
    # The checkpoint knows its data set.
    again = tmp_path / "again"
    assert cli.main(["eval", str(out / "model_final.pth"), "--output", str(again)]) == 0
    assert json.loads((again / "evaluation.json").read_text()).keys() >= {"bbox"}
