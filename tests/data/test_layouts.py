"""One data set in every layout: the same images, boxes and classes in each split."""

from __future__ import annotations

import contextlib
import io
import logging
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances

from nanodet_d2.data.sources import layout_of
from nanodet_d2.data.splits import class_names, split_content, split_name
from nanodet_d2.engine import DetectionEvaluator
from tests.data import layouts, one_set
from tests.data.layouts import WITH_SPLITS, WITHOUT_SPLITS
from tests.data.one_set import CLASSES, as_truth, assert_is, data_section, truth

pytestmark = pytest.mark.usefixtures("catalog_as_before")

each_layout = pytest.mark.parametrize("write", WITH_SPLITS, ids=lambda x: x.__name__)
each_without = pytest.mark.parametrize("write", WITHOUT_SPLITS, ids=lambda x: x.__name__)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Of a writer: what data.source has to be; written once."""
    known: dict[object, Path] = {}

    def source(write) -> Path:
        if write not in known:
            known[write] = write(tmp_path_factory.mktemp(write.__name__))
        return known[write]

    return source


def registered(data: dict, split: str) -> dict:
    """What training and evaluation get, as :func:`truth` tells it."""
    name = split_name(data, split)
    classes = MetadataCatalog.get(name).thing_classes
    found = {
        Path(record["file_name"]).name: sorted(
            (classes[x["category_id"]], *x["bbox"]) for x in record["annotations"]
        )
        for record in DatasetCatalog.get(name)
    }
    assert len(found) == len(DatasetCatalog.get(name))
    return found


def content(data: dict, split: str) -> dict:
    """What the doctor and the converter get, the same way."""
    raw, _, images = split_content(data, split)
    return as_truth(raw, Path(images))


@each_layout
def test_each_split_has_its_images_and_boxes(written, write):
    data = data_section(written(write))
    assert class_names(data) == CLASSES
    assert write.__name__.startswith(layout_of(data).name)
    for split in ("train", "val"):
        assert_is(registered(data, split), truth(split))
        assert_is(content(data, split), truth(split))
    data = data_section(written(write), train="val", val="test")
    assert_is(registered(data, "train"), truth("val"))
    assert_is(registered(data, "val"), truth("test"))


@each_layout
def test_a_folder_in_a_folder(tmp_path, write):
    """As archives are unpacked."""
    write(tmp_path / "archive" / "set 1")
    (tmp_path / "README.md").write_text("# A set")
    if write is not layouts.yolo_path_and_mapping:  # which is given as a file
        data = data_section(tmp_path)
        assert_is(registered(data, "train"), truth("train"))
        assert_is(registered(data, "val"), truth("val"))


@each_without
def test_a_fifth_of_a_set_without_splits_is_kept_for_validation(written, write):
    data = data_section(written(write))
    assert class_names(data) == CLASSES
    train, val = (registered(data, x) for x in ("train", "val"))
    assert set(train).isdisjoint(val) and 2 <= len(val) <= 4
    assert_is({**train, **val}, truth())
    assert_is(content(data, "train"), train)
    assert_is(content(data, "val"), val)


@each_layout
def test_sizes_are_those_in_which_images_are_shown(written, write):
    records = DatasetCatalog.get(split_name(data_section(written(write)), "train"))
    sizes = {Path(x["file_name"]).name: (x["height"], x["width"]) for x in records}
    assert sizes == {x.name: x.size for x in one_set.of("train")}
    assert sorted(set(sizes.values())) == [(60, 80), (80, 60)]


@pytest.mark.parametrize(
    "write", [layouts.coco_roboflow, layouts.voc_devkit, layouts.yolo_roboflow, layouts.yolo_beside]
)
def test_the_configs_classes_count(written, write):
    data = data_section(written(write), classes=CLASSES[::-1])
    assert class_names(data) == CLASSES[::-1]
    if not write.__name__.startswith("yolo"):
        assert_is(registered(data, "train"), truth("train"))
    else:  # whose files have numbers
        swapped = {CLASSES[i]: CLASSES[2 - i] for i in range(3)}
        expected = {
            name: sorted((swapped[c], *box) for c, *box in boxes)
            for name, boxes in truth("train").items()
        }
        assert_is(registered(data, "train"), expected)
    assert_is(content(data, "train"), registered(data, "train"))


def test_roboflows_category_above_all_is_left_out_and_said(written, caplog):
    with caplog.at_level(logging.WARNING, logger="nanodet_d2"):
        registered(data_section(written(layouts.coco_roboflow)), "train")
    assert "1 categories above all others without a box of their own, left out" in caplog.text


def test_trainval_stands_for_train(tmp_path):
    data = data_section(layouts.voc_devkit_trainval(tmp_path))
    assert_is(registered(data, "train"), truth("train", "val"))
    assert_is(registered(data, "val"), truth("test"))


def test_train_and_test_only(tmp_path):
    for split in ("train", "test"):
        one_set.put_voc(tmp_path / split, tmp_path / split, one_set.of(split))
    data = data_section(tmp_path)
    assert_is(registered(data, "train"), truth("train"))
    assert_is(registered(data, "val"), truth("test"))
    data = data_section(tmp_path, val_share=0.4)  # then the test split is left alone
    train, val = (registered(data, x) for x in ("train", "val"))
    assert train and val and set(train).isdisjoint(val)
    assert_is({**train, **val}, truth("train"))


@pytest.mark.parametrize("write", [layouts.coco_annotations, layouts.voc_devkit])
def test_a_share_for_validation_is_of_train_alone(written, write):
    data = data_section(written(write), val_share=0.3)
    assert_is({**registered(data, "train"), **registered(data, "val")}, truth("train"))


@each_layout
def test_the_test_split_is_never_trained_on(written, write):
    for data in (
        data_section(written(write), train="test"),
        data_section(written(write), train="test", val_share=0.5),
    ):
        for split in ("train", "val") if "val_share" in data else ("train",):
            with pytest.raises(ValueError, match="the test split is never trained on"):
                split_name(data, split)
            with pytest.raises(ValueError, match="the test split is never trained on"):
                split_content(data, split)


def test_a_split_that_is_not_there(written):
    data = data_section(written(layouts.coco_annotations), val="minival")
    with pytest.raises(ValueError, match=r"has no split minival for data.val.*train, val, test"):
        split_name(data, "val")


def test_a_split_of_other_files_goes_before_the_folders(written, tmp_path):
    """data.val.json beside data.source: then nothing is taken from train."""
    one_set.put_coco(tmp_path / "mine.json", one_set.of("test"))
    images = str(one_set.put(tmp_path / "images", one_set.of("test")))
    data = data_section(written(layouts.coco_single))
    data["val"] = {"json": str(tmp_path / "mine.json"), "images": images}
    assert_is(registered(data, "train"), truth())
    assert_is(registered(data, "val"), truth("test"))


@pytest.mark.parametrize(
    ("folder", "splits"),
    [
        ("bccd", {"train": 205, "val": 87, "test": 72, "trainval": 292}),
        ("cards", {"train": 296, "test": 67}),
    ],
)
def test_real_sets_as_they_lie(shared, folder, splits):
    place = shared / "real" / folder
    if not place.is_dir():
        pytest.skip(f"{place} is absent")
    layout = layout_of(data_section(place))
    assert list(layout.splits) == list(splits)
    for name, count in splits.items():
        assert len(split_content(data_section(place, val=name), "val")[0]["images"]) == count
    classes = {
        "bccd": ["Platelets", "RBC", "WBC"],
        "cards": ["ace", "jack", "king", "nine", "queen", "ten"],
    }
    assert class_names(data_section(place)) == classes[folder]


def score(name: str, output: Path) -> dict[str, float]:
    """AP of a detector that finds every object, not quite where it is, and some that are not."""
    evaluator = DetectionEvaluator(name, str(output))
    evaluator.reset()
    classes = MetadataCatalog.get(name).thing_classes
    for record in DatasetCatalog.get(name):
        file = Path(record["file_name"]).name
        rng = np.random.default_rng(zlib.crc32(file.encode()))
        expected = truth()[file]
        found = Instances((record["height"], record["width"]))
        boxes = np.array([x[1:] for x in expected] + [(1, 1, 30, 20)], dtype=np.float32)
        found.pred_boxes = Boxes(torch.from_numpy(boxes + rng.normal(0, 2, boxes.shape)).float())
        found.pred_classes = torch.tensor([classes.index(x[0]) for x in expected] + [0])
        found.scores = torch.from_numpy(rng.uniform(0.1, 1, len(boxes)))
        evaluator.process([record], [{"instances": found}])
    with contextlib.redirect_stdout(io.StringIO()):
        return evaluator.evaluate()["bbox"]


def test_every_layout_gives_the_same_ap(written, tmp_path):
    scores = {}
    for write in WITH_SPLITS:
        name = split_name(data_section(written(write)), "val")
        scores[write.__name__] = score(name, tmp_path / write.__name__)
    first = scores["coco_annotations"]
    assert 20 < first["AP"] < 90 and len(scores) > 10
    for name, metrics in scores.items():
        assert metrics == pytest.approx(first, abs=0.1, nan_ok=True), name
