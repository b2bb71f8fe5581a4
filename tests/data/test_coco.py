"""The COCO reader and the data section of a config."""

from __future__ import annotations

import json
import logging

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from nanodet_d2.data import num_classes, split_name
from nanodet_d2.data.readers.coco import read_coco_json
from nanodet_d2.data.records import categories_by_id, to_records


def content(**changes) -> dict:
    """Two images of 40 x 30 pixels (the second without boxes), ids in no order and with gaps."""
    base = {
        "images": [
            {"id": 9, "file_name": "b.png", "width": 40, "height": 30},
            {"id": 2, "file_name": "a.png", "width": 40, "height": 30},
        ],
        "annotations": [
            {"id": 1, "image_id": 9, "category_id": 70, "bbox": [5, 6, 10, 12], "area": 120}
        ],
        "categories": [{"id": 70, "name": "cat"}, {"id": 3, "name": "dog"}],
    }
    return {**base, **changes}


def annotation(box, **fields) -> dict:
    return {"id": 5, "image_id": 9, "category_id": 3, "bbox": box, **fields}


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), np.zeros((30, 40, 3), np.uint8))
    return tmp_path


@pytest.fixture
def write(folder):
    def _write(value, name="instances.json") -> str:
        path = folder / name
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        return str(path)

    return _write


def load(path: str, folder):
    index = {key: i for i, key in enumerate(read_categories(path))}
    return to_records(read_coco_json(path), path, str(folder), index)


def read_categories(path: str) -> dict[int, str]:
    return categories_by_id(read_coco_json(path), path)


def test_ids_in_any_order_and_empty_images(write, folder):
    path = write(content())
    assert read_categories(path) == {3: "dog", 70: "cat"}
    records = load(path, folder)
    assert [r["image_id"] for r in records] == [2, 9]
    assert records[0]["annotations"] == []
    (only,) = records[1]["annotations"]
    assert only == {
        "bbox": [5, 6, 15, 18],
        "bbox_mode": BoxMode.XYXY_ABS,
        "category_id": 1,
        "iscrowd": 0,
    }


@pytest.mark.parametrize(
    "box, kept, words",
    [
        ([-5, -5, 20, 20], [0, 0, 15, 15], "1 boxes reaching beyond their image, clipped"),
        ([30, 20, 10.2, 10.2], [30, 20, 40, 30], None),  # a rounding of the file
        ([50, 50, 10, 10], None, "1 boxes outside their image, dropped"),
        ([5, 5, 0, 10], None, "1 boxes narrower or lower than 1 px, dropped"),
        ([5, 5, 10, -3], None, "1 boxes narrower or lower"),
        ([5, 5, float("nan"), 4], None, "1 boxes that are not finite, dropped"),
        ([5, 5, 4], None, "1 boxes that are not four numbers, dropped"),
    ],
)
def test_boxes_are_cleaned_and_counted(write, folder, caplog, box, kept, words):
    path = write(content(annotations=[annotation(box)]))
    with caplog.at_level(logging.WARNING, logger="nanodet_d2"):
        records = load(path, folder)
    boxes = [x["bbox"] for r in records for x in r["annotations"]]
    assert boxes == ([kept] if kept else [])
    assert (words in caplog.text) if words else caplog.text == ""


def test_crowd_and_ignore_are_marked_and_areas_of_zero_dropped(write, folder):
    boxes = [
        annotation([1, 1, 9, 9], iscrowd=1),
        annotation([1, 1, 9, 9], ignore=1),
        annotation([1, 1, 9, 9], area=0),
    ]
    records = load(write(content(annotations=boxes)), folder)
    assert [x["iscrowd"] for x in records[1]["annotations"]] == [1, 1]


@pytest.mark.parametrize(
    "value, message",
    [
        ("{ no json", "is not valid json"),
        ("[1, 2]", "is not COCO: found list"),
        ({"shapes": [], "imagePath": "a.png"}, r"found \['imagePath', 'shapes'\]"),
        (content(categories=[]), "has no categories"),
        (content(images=[{"id": 1, "file_name": "a.png"}]), r"lacks \['width', 'height'\]"),
    ],
)
def test_what_is_not_coco_is_refused(write, value, message):
    path = write(value)
    with pytest.raises(ValueError, match=message) as error:
        read_coco_json(path)
    assert "instances.json" in str(error.value)


def test_annotations_of_nothing_known_are_counted(write, folder, caplog):
    lost = [annotation([1, 1, 9, 9], category_id=8), annotation([1, 1, 9, 9], image_id=77)]
    with caplog.at_level(logging.WARNING, logger="nanodet_d2"):
        records = load(
            write(content(annotations=[*lost, *lost, *content()["annotations"]])), folder
        )
    assert sum(len(r["annotations"]) for r in records) == 1
    assert "2 annotations of an unknown category, dropped (first: annotation 5: 8)" in caplog.text
    assert "2 annotations of an unknown image, dropped (first: annotation 5)" in caplog.text


def test_problems_are_named(write, folder):
    twice = content(images=content()["images"][:1] * 2)
    with pytest.raises(ValueError, match="has the image id 9 twice"):
        load(write(twice), folder)
    with pytest.raises(ValueError, match="category id or name twice"):
        read_categories(write(content(categories=[{"id": 1, "name": "x"}] * 2), "twice.json"))
    with pytest.raises(FileNotFoundError, match="missing.json not found"):
        read_coco_json(str(folder / "missing.json"))
    (folder / "a.png").unlink()
    with pytest.raises(FileNotFoundError, match="1 of the 2 images .* are missing.*a.png"):
        load(write(content()), folder)


def section(train=None, val=None, images=None) -> dict:
    def split(name, path):
        return {"name": name, "json": path, "images": images if path else None}

    return {"train": split("coco_2017_train", train), "val": split("coco_2017_val", val)}


def test_splits_share_the_classes_of_train(write, folder):
    train = write(content(), "train.json")
    # The same classes under other ids: mapped by name.
    other_ids = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    boxes = [annotation([1, 1, 9, 9], category_id=1)]
    val = write(content(categories=other_ids, annotations=boxes), "val.json")
    data = section(train, val, str(folder))
    assert num_classes(data) == 2
    names = [split_name(data, "train"), split_name(data, "val")]
    assert names == [split_name(data, "train"), split_name(data, "val")]  # registered once
    for name in names:
        assert MetadataCatalog.get(name).thing_classes == ["dog", "cat"]
        assert DatasetCatalog.get(name)[1]["annotations"][0]["category_id"] == 1


def test_splits_of_other_classes_are_refused(write, folder):
    path = write(content())
    with pytest.raises(
        ValueError, match="data.val has the classes person, .*model is for dog, cat"
    ):
        split_name(section(train=path, images=str(folder)), "val")
    with pytest.raises(ValueError, match="data.train has the classes person, .*for dog, cat"):
        split_name(section(val=path, images=str(folder)), "train")
    with pytest.raises(ValueError, match="data.train.json needs data.train.images"):
        split_name(section(train=path), "train")


def test_registered_data_sets_work_by_name():
    data = section()
    assert num_classes(data) == 80
    assert split_name(data, "train") == "coco_2017_train"
    data["train"]["name"] = "coco_2017_trian"
    with pytest.raises(ValueError, match="'coco_2017_trian' is not registered.*coco_2017_train"):
        num_classes(data)
