"""The evaluator on predictions whose metrics are known."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.structures import Boxes, Instances

from nanodet_d2.data import split_name
from nanodet_d2.engine import DetectionEvaluator


@pytest.fixture
def data(shapes, tmp_path) -> dict:
    """The drawn set; its val file without the fields that hand-made files often lack."""
    val = json.loads(open(shapes["val"]["json"]).read())
    for annotation in val["annotations"]:
        del annotation["iscrowd"], annotation["area"]
    val.pop("info", None)
    path = tmp_path / "bare.json"
    path.write_text(json.dumps(val))
    return {"train": shapes["train"], "val": {"json": str(path), "images": shapes["val"]["images"]}}


def evaluate(data, shift: float, output_dir=None) -> dict:
    """Metrics of the objects themselves, moved by ``shift`` times each box's width."""
    name = split_name(data, "val")
    evaluator = DetectionEvaluator(name, output_dir)
    evaluator.reset()
    for record in DatasetCatalog.get(name):
        objects = [x for x in record["annotations"] if not x["iscrowd"]]
        boxes = torch.tensor([x["bbox"] for x in objects]).reshape(-1, 4)
        boxes[:, 0::2] += shift * (boxes[:, 2:3] - boxes[:, 0:1])
        found = Instances(
            (record["height"], record["width"]),
            pred_boxes=Boxes(boxes),
            scores=torch.ones(len(boxes)),
            pred_classes=torch.tensor([x["category_id"] for x in objects]).long(),
        )
        evaluator.process([record], [{"instances": found}])
    return evaluator.evaluate()["bbox"]


def test_perfect_predictions(data, tmp_path):
    results = evaluate(data, 0.0, str(tmp_path / "out"))
    overall = [
        "AP",
        "AP50",
        "AP75",
        "APs",
        "APm",
        "APl",
        "AR1",
        "AR10",
        "AR100",
        "ARs",
        "ARm",
        "ARl",
    ]
    assert list(results)[:12] == overall
    assert results["AP"] == pytest.approx(100) and results["AR100"] == pytest.approx(100)
    assert all(k.startswith("AP-") for k in list(results)[12:])
    assert results["ARl"] != results["ARl"]  # nan: no object of that size in the set
    assert (tmp_path / "out" / "coco_instances_results.json").is_file()


def test_shifted_predictions(data):
    # IoU of a box with itself moved by 1/4 of its width: 0.75 / 1.25 = 0.6
    results = evaluate(data, 0.25)
    assert results["AP50"] == pytest.approx(100) and results["AP75"] == pytest.approx(0)
    assert 20 <= results["AP"] <= 35  # thresholds 0.50, 0.55 and, up to rounding, 0.60 of ten


def test_no_predictions_at_all(data):
    name = split_name(data, "val")
    evaluator = DetectionEvaluator(name)
    evaluator.reset()
    nothing = Instances((96, 96), pred_boxes=Boxes(torch.zeros(0, 4)), scores=torch.zeros(0))
    nothing.pred_classes = torch.zeros(0, dtype=torch.int64)
    for record in DatasetCatalog.get(name):
        evaluator.process([record], [{"instances": nothing}])
    results = evaluator.evaluate()["bbox"]
    assert results["AP"] != results["AP"]  # nan, as detectron2 says it


def test_classes_keep_their_names_whatever_the_ids(data, tmp_path, pictures):
    """The val file numbers the classes the other way round: detectron2 would swap their names."""
    val = json.loads(open(data["val"]["json"]).read())
    last = max(x["id"] for x in val["categories"]) + 1
    for x in val["categories"]:
        x["id"] = last - x["id"]
    first = val["categories"][0]
    for x in val["annotations"]:
        x["category_id"] = last - x["category_id"]
    # Of the first class, no object: its AP is nan, those of the others 100.
    val["annotations"] = [x for x in val["annotations"] if x["category_id"] != first["id"]]
    (tmp_path / "turned.json").write_text(json.dumps(val))
    data["val"]["json"] = str(tmp_path / "turned.json")
    results = evaluate(data, 0.0, str(tmp_path / "out"))
    per_class = {k: v for k, v in results.items() if k.startswith("AP-")}
    assert len(per_class) > 1
    for name, ap in per_class.items():
        assert (ap != ap) if name == f"AP-{first['name']}" else ap == pytest.approx(100)
    counts = json.loads((tmp_path / "out" / "per_class.json").read_text())
    assert counts[first["name"]] == {"AP": None, "AP50": None, "objects": 0}


def rewritten(data: dict, change: Callable[[list[dict]], None]) -> dict:
    """The data section with a val file whose annotations were changed in place."""
    content = json.loads(open(data["val"]["json"]).read())
    change(content["annotations"])
    with open(data["val"]["json"], "w") as file:
        json.dump(content, file)
    return data


@pytest.mark.parametrize("crowd", [{"ignore": 1, "iscrowd": 0}, {"ignore": 1}, {"iscrowd": "1"}])
def test_what_training_ignores_is_not_missed(data, crowd):
    """It was no object in training and one that was not found here: an AR100 below 100."""
    results = evaluate(rewritten(data, lambda annotations: annotations[0].update(crowd)), 0.0)
    assert results["AR100"] == pytest.approx(100) and results["AP"] == pytest.approx(100)


@pytest.mark.parametrize("ids", ["from 0", "negative", "all the same", "words", "none"])
def test_ids_of_annotations_do_not_cost_precision(data, ids, tmp_path):
    """pycocotools takes an object with an id below 1 for missed, and the last of two for both."""

    def renumber(annotations: list[dict]) -> None:
        for i, annotation in enumerate(annotations):
            numbers = {"from 0": i, "negative": -i - 1, "all the same": 5}
            annotation["id"] = numbers.get(ids, f"x{i}")
            if ids == "none":
                del annotation["id"]

    output = str(tmp_path / "out") if ids == "none" else None  # needed to write them anew
    results = evaluate(rewritten(data, renumber), 0.0, output)
    assert results["AP"] == pytest.approx(100) and results["AR100"] == pytest.approx(100)


@pytest.mark.parametrize("area", [None, "400", True])
def test_an_area_that_is_no_number_is_that_of_the_box(data, area):
    results = evaluate(rewritten(data, lambda x: [a.update(area=area) for a in x]), 0.0)
    assert results["AP"] == pytest.approx(100)
