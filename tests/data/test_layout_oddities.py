"""What is odd in data sets that are given as folders."""

from __future__ import annotations

import io
import json
import logging
import re
import time
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from nanodet_d2.data.splits import class_names, num_classes, split_content, split_name
from tests.data import layouts, one_set
from tests.data.one_set import CLASSES, Picture, data_section, of

pytestmark = pytest.mark.usefixtures("catalog_as_before")

WRITERS = [layouts.coco_roboflow, layouts.voc_devkit, layouts.yolo_roboflow]


def records(data: dict, split: str = "train") -> list[dict]:
    return DatasetCatalog.get(split_name(data, split))


@pytest.mark.parametrize("ids", [(0, 1, 2), (1, 2, 3), (-3, 5, 10**12), ("a", "b", "c")])
def test_category_ids_start_anywhere(tmp_path, monkeypatch, ids):
    monkeypatch.setattr(one_set, "IDS", ids)
    data = data_section(layouts.coco_annotations(tmp_path))
    assert class_names(data) == CLASSES
    found = {Path(x["file_name"]).name: len(x["annotations"]) for x in records(data)}
    assert found == {x.name: len(x.boxes) for x in of("train")}
    classes = sorted(y["category_id"] for x in records(data) for y in x["annotations"])
    assert classes == sorted(c for x in of("train") for c, *_ in x.boxes)


ODD_NAMES = ["007", "a & <b>", "c: d", "e, f", "no", "x / y", "Ёж", "ไฟ", "🚗 car"]  # sorted


@pytest.mark.parametrize("write", WRITERS, ids=lambda x: x.__name__)
def test_names_of_classes_are_taken_as_they_are_written(tmp_path, monkeypatch, write):
    boxes = tuple((i, 1, 2, 10, 20) for i in range(len(ODD_NAMES)))
    each = tuple(x._replace(boxes=boxes) for x in of())
    monkeypatch.setattr(one_set, "pictures", lambda: each)
    monkeypatch.setattr(one_set, "CLASSES", ODD_NAMES)
    monkeypatch.setattr(one_set, "IDS", range(3, 3 + len(ODD_NAMES)))
    data = data_section(write(tmp_path))
    assert class_names(data) == ODD_NAMES
    assert MetadataCatalog.get(split_name(data, "val")).thing_classes == ODD_NAMES
    for record in records(data):
        assert [x["category_id"] for x in record["annotations"]] == list(range(len(ODD_NAMES)))


@pytest.mark.parametrize(
    "names", ["[no, 007, 狗]", "\n- no\n- 007\n- 狗", "\n  0: no\n  1: 007\n  2: 狗"]
)
def test_names_without_quotes_in_yaml(tmp_path, names):
    """YAML itself takes the first for false, and the second for 7."""
    layouts.yolo_folders(tmp_path)
    text = f"train: images/train\nval: images/val\nnc: 3\nnames: {names}\n"
    (tmp_path / "data.yaml").write_bytes("\ufeff".encode() + text.replace("\n", "\r\n").encode())
    assert class_names(data_section(tmp_path)) == ["no", "007", "狗"]


def test_images_that_nobody_looked_at(tmp_path):
    """In YOLO an image without a file has no boxes; in Pascal VOC it says so in a file."""
    layouts.voc_mirrored(tmp_path / "voc")
    layouts.yolo_undescribed_mirrored(tmp_path / "yolo")
    (tmp_path / "voc" / "xml" / f"{of()[0].stem}.xml").unlink()
    (tmp_path / "yolo" / "labels" / f"{of()[0].stem}.txt").unlink()
    counts = [
        len(records(data)) + len(records(data, "val"))
        for data in (data_section(tmp_path / x) for x in ("voc", "yolo"))
    ]
    assert counts == [len(of()) - 1, len(of())]


def test_a_turned_image_whose_size_no_file_tells(tmp_path):
    layouts.voc_split_folders(tmp_path)
    for path in tmp_path.rglob("*.xml"):
        path.write_text(re.sub("<size>.*</size>", "", path.read_text("utf-8")), "utf-8")
    found = {
        Path(x["file_name"]).name: (x["height"], x["width"])
        for x in records(data_section(tmp_path))
    }
    assert found == {x.name: x.size for x in of("train")}


def test_difficult_objects(tmp_path):
    """Kept, or neither taught nor counted."""
    layouts.voc_devkit(tmp_path)
    stem = of("val")[0].stem
    path = tmp_path / "Annotations" / f"{stem}.xml"
    text = path.read_text("utf-8")
    path.write_text(text.replace("</object>", "<difficult>1</difficult></object>", 1), "utf-8")
    for difficult, expected in ((None, 0), ("keep", 0), ("ignore", 1)):
        data = data_section(tmp_path, difficult=difficult)
        (record,) = (x for x in records(data, "val") if Path(x["file_name"]).stem == stem)
        assert sum(x["iscrowd"] for x in record["annotations"]) == expected
        assert len(record["annotations"]) == len(of("val")[0].boxes)
        content = split_content(data, "val")[0]
        assert sum(x["iscrowd"] for x in content["annotations"]) == expected
        assert class_names(data) == CLASSES
    # The same for the keys of one split.
    section = {"voc": str(tmp_path / "Annotations"), "images": str(tmp_path / "JPEGImages")}
    content = split_content({"train": section, "val": section, "difficult": "ignore"}, "val")[0]
    assert sum(x["iscrowd"] for x in content["annotations"]) == 1


def test_segments_become_boxes_and_are_counted(tmp_path, caplog):
    layouts.yolo_roboflow(tmp_path)
    stem = of("train")[0].stem
    label = tmp_path / "train" / "labels" / f"{stem}.txt"
    label.write_text("2 0.25 0.5 0.5 0.75 0.375 0.25\n0 0.1 0.1 0.3 0.1 0.3 0.4 0.1 0.4\n")
    with caplog.at_level(logging.WARNING, logger="nanodet_d2"):
        found = records(data_section(tmp_path))
    (record,) = (x for x in found if Path(x["file_name"]).stem == stem)
    boxes = {CLASSES[x["category_id"]]: x["bbox"] for x in record["annotations"]}
    assert boxes[CLASSES[2]] == pytest.approx([20, 15, 40, 45])  # of 80 x 60 pixels
    assert boxes[CLASSES[0]] == pytest.approx([8, 6, 24, 24])
    assert "2 polygons, turned into their boxes" in caplog.text


def test_a_folder_of_segments_alone_is_recognised(tmp_path):
    layouts.yolo_undescribed(tmp_path)
    for path in (tmp_path / "labels").rglob("*.txt"):
        path.write_text("1 " + " ".join(["0.123456 0.654321"] * 400) + "\n")
    assert len(records(data_section(tmp_path))) == len(of("train"))


def test_lines_and_files_of_other_systems(tmp_path):
    """Windows' ends of lines, byte order marks, suffixes in capitals, hidden files."""
    layouts.voc_devkit(tmp_path / "voc")
    layouts.yolo_text_files(tmp_path / "yolo")
    for path in [*tmp_path.rglob("*.txt")]:
        text = path.read_text("utf-8")
        path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    for path in [*(tmp_path / "voc").rglob("*.jpg")]:
        path.rename(path.with_suffix(".JPG"))
    for name in ("._train.txt", ".DS_Store"):
        (tmp_path / "yolo" / name).write_bytes(b"\0\1")
    for folder in ("voc", "yolo"):
        found = {Path(x["file_name"]).stem for x in records(data_section(tmp_path / folder))}
        assert found == {x.stem for x in of("train")}


def test_a_path_with_images_in_it(tmp_path):
    """Labels are looked for beside the last folder that is called so, or beside the image."""
    for write in (layouts.yolo_beside, layouts.yolo_folders):
        place = tmp_path / "images" / write.__name__ / "images_1"
        place.mkdir(parents=True)
        data = data_section(write(place))
        boxes = sum(len(x["annotations"]) for x in records(data))
        assert boxes == sum(len(x.boxes) for x in of("train"))


def test_a_relative_folder_and_one_of_the_users(tmp_path, monkeypatch):
    layouts.yolo_roboflow(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for source in ("mine", "~/mine", "./mine/", "mine/data.yaml"):
        assert len(records(data_section(source))) == len(of("train"))


@pytest.mark.parametrize(
    "write", [layouts.coco_single, layouts.voc_one_folder, layouts.yolo_beside]
)
def test_several_thousand_classes(tmp_path, monkeypatch, write):
    """What is quadratic in them would take minutes."""
    count = 6000
    rng, file = np.random.default_rng(0), io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(file, "JPEG")
    each = []
    for i in range(120):
        split = "train" if i < 60 else "val"
        boxes = tuple((c, 1, 1, 4, 4) for c in range(i % 60, count, 60))  # each class twice
        each.append(Picture(f"{i:03}", split, (8, 8), boxes, file.getvalue()))
    monkeypatch.setattr(one_set, "pictures", lambda: tuple(each))
    monkeypatch.setattr(one_set, "SPLITS", {"train": 60, "val": 60})
    monkeypatch.setattr(one_set, "CLASSES", [f"class {i:04}" for i in range(count)])
    monkeypatch.setattr(one_set, "IDS", range(count))
    data = data_section(write(tmp_path))
    before = time.process_time()
    assert num_classes(data) == count
    found = [*records(data, "train"), *records(data, "val")]
    assert time.process_time() - before < 15  # a second or two
    assert sum(len(x["annotations"]) for x in found) == 2 * count


def test_a_link_to_images_elsewhere_has_to_be_allowed(tmp_path):
    one_set.put(tmp_path / "elsewhere", of())
    place = tmp_path / "set"
    one_set.put_yolo(place / "labels", place / "images", [])
    one_set.put_yolo(tmp_path / "elsewhere", tmp_path / "elsewhere", of())
    (place / "train.txt").write_text(
        "".join(f"{tmp_path / 'elsewhere' / x.name}\n" for x in of()), "utf-8"
    )
    one_set.put_description(place / "data.yaml", train="train.txt", val="train.txt")
    with pytest.raises(ValueError, match=r"outside the image folder .*data\.allow_outside=true"):
        records(data_section(place))
    assert len(records(data_section(place, allow_outside=True))) == len(of())


def test_the_name_of_the_folder_itself_says_nothing(tmp_path):
    for write in (layouts.coco_single, layouts.voc_one_folder, layouts.yolo_undescribed_one_folder):
        data = data_section(write(tmp_path / "test" / write.__name__ / "test_set"))
        assert len(records(data)) + len(records(data, "val")) == len(of())


@pytest.mark.parametrize("prefix", ["pictures/all/", "all/", ""])
def test_a_coco_file_whose_images_lie_elsewhere_in_the_folder(tmp_path, prefix):
    """With the folder in the names, or without it."""
    folder = tmp_path if prefix else tmp_path / "pictures"
    one_set.put(tmp_path / "pictures" / "all", of())
    content = one_set.coco(of())
    for image in content["images"]:
        image["file_name"] = prefix + image["file_name"]
    (folder / "labels.json").write_text(json.dumps(content))
    data = data_section(folder)
    assert len(records(data)) + len(records(data, "val")) == len(of())
