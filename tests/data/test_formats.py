"""One data set as COCO, Pascal VOC and YOLO, and what is wrong in hand-made files."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from nanodet_d2.data import num_classes, split_name
from nanodet_d2.data.files import Problems, listed_image_size
from nanodet_d2.data.images import read_image
from tests.data.formats import write_voc, write_yolo

NAMES = ["Fußgänger", "traffic light", "狗"]


@pytest.fixture
def content(tmp_path) -> dict:
    """Images in sub-folders with spaces and non-ASCII names; ids in no order; one without boxes."""
    files = ["a b/zwölf.png", "a b/eins.png", "c/猫.jpg", "empty.png"]
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for image_id, name in zip((40, 7, 12, 3), files):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        encoded = cv2.imencode(path.suffix, np.zeros((60, 80, 3), np.uint8))[1]
        path.write_bytes(encoded.tobytes())
        images.append({"id": image_id, "file_name": name, "width": 80, "height": 60})
        for _ in range(0 if name == "empty.png" else 4):
            low, size = rng.uniform(0, 30, 2), rng.uniform(2, 28, 2)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(rng.choice([9, 2, 5])),
                    "bbox": [*low.tolist(), *size.tolist()],
                }
            )
    categories = [{"id": i, "name": name} for i, name in zip((9, 2, 5), NAMES)]
    return {"images": images, "annotations": annotations, "categories": categories}


def section(root: Path, classes=None, **split) -> dict:
    source = {"name": "", "images": str(root / "images"), **split}
    return {"train": source, "val": source, "classes": classes}


def by_file(data: dict) -> dict[str, list]:
    """File -> (class name, box) of each annotation, sorted."""
    name = split_name(data, "train")
    classes = MetadataCatalog.get(name).thing_classes
    return {
        record["file_name"]: sorted(
            (classes[x["category_id"]], *x["bbox"]) for x in record["annotations"]
        )
        for record in DatasetCatalog.get(name)
    }


def assert_same(found: dict[str, list], expected: dict[str, list], tolerance: float) -> None:
    assert set(found) == set(expected) and len(expected) == 4
    for file, boxes in expected.items():
        assert [x[0] for x in found[file]] == [x[0] for x in boxes]
        for mine, theirs in zip(found[file], boxes):
            assert mine[1:] == pytest.approx(theirs[1:], abs=tolerance)


def test_the_same_boxes_from_all_formats(content, tmp_path):
    (tmp_path / "coco.json").write_text(json.dumps(content))
    expected = by_file(section(tmp_path, json=str(tmp_path / "coco.json")))
    assert sum(map(len, expected.values())) == 12

    write_voc(content, tmp_path / "voc")
    data = section(tmp_path, voc=str(tmp_path / "voc"))
    assert num_classes(data) == 3
    assert_same(by_file(data), expected, 1e-9)

    names = write_yolo(content, tmp_path / "yolo")
    data = section(tmp_path, classes=names, yolo=str(tmp_path / "yolo"))
    assert_same(by_file(data), expected, 80e-6)  # of its own rounding


def test_the_configs_classes_set_the_order(content, tmp_path):
    write_voc(content, tmp_path / "voc")
    data = section(tmp_path, classes=NAMES[::-1], voc=str(tmp_path / "voc"))
    assert MetadataCatalog.get(split_name(data, "train")).thing_classes == NAMES[::-1]


def test_bad_voc_files_are_counted_and_named(content, tmp_path, caplog):
    write_voc(content, tmp_path / "voc")
    (tmp_path / "voc" / "torn.xml").write_text("<annotation><object>")
    (tmp_path / "voc" / "lost.xml").write_text("<annotation/>")
    path = tmp_path / "voc" / "empty.xml"
    path.write_text(
        "<annotation><filename>empty.png</filename>"
        "<object><name>dragon</name></object><object><name>狗</name></object></annotation>"
    )
    data = section(tmp_path, classes=NAMES, voc=str(tmp_path / "voc"))
    with caplog.at_level(logging.WARNING, logger="nanodet_d2"):
        records = by_file(data)
    assert sum(map(len, records.values())) == 12 and len(records) == 4
    assert "1 files that are not XML, left out (first: torn.xml: " in caplog.text
    assert "1 files without their image, left out (first: lost.xml)" in caplog.text
    assert "1 objects of an unknown class, dropped (first: empty.xml: 'dragon')" in caplog.text
    assert "1 objects without a box, dropped (first: empty.xml: 狗)" in caplog.text


def test_bad_yolo_lines_are_counted_and_named(content, tmp_path, caplog):
    names = write_yolo(content, tmp_path / "yolo")
    lines = ["", "7 0.5 0.5 0.1 0.1", "0  0.5 0.5 0.1 0.1 0.93", "zero 1 1 1 1", "1 0.5 0.5", ""]
    (tmp_path / "yolo" / "empty.txt").write_text("\n".join(lines))
    (tmp_path / "yolo" / "lost.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    data = section(tmp_path, classes=names, yolo=str(tmp_path / "yolo"))
    with caplog.at_level(logging.WARNING, logger="nanodet_d2"):
        records = by_file(data)
    (box,) = records[str(tmp_path / "images" / "empty.png")]
    assert box[0] == names[0] and box[1:] == pytest.approx([36, 27, 44, 33])
    assert "1 lines of an unknown class, dropped (first: empty.txt line 2" in caplog.text
    assert "2 lines that are not a class and four numbers, dropped" in caplog.text
    assert "1 text files without their image, left out (first: lost.txt)" in caplog.text


def test_what_cannot_be_a_data_set_is_refused(content, tmp_path):
    names = write_yolo(content, tmp_path / "yolo")
    (tmp_path / "nothing").mkdir()
    for split, classes, message in (
        (dict(voc="nowhere"), None, "folder nowhere not found"),
        (dict(voc=str(tmp_path / "nothing")), None, "has no .xml files"),
        (dict(yolo=str(tmp_path / "yolo")), None, "needs data.classes"),
        (dict(yolo=str(tmp_path / "nothing")), names, "has no .txt file of an image"),
        (dict(yolo="x", voc="y"), names, "data.train has voc and yolo; allowed: one of them"),
        (dict(yolo="x", images=None), names, "data.train.yolo needs data.train.images"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            split_name(section(tmp_path, classes=classes, **split), "train")


def test_sizes_are_those_an_image_is_shown_in(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.new("RGB", (40, 30)).save(tmp_path / "turned.jpg", exif=exif)
    problems = Problems()
    assert listed_image_size(tmp_path / "turned.jpg", problems) == (40, 30)
    # Of a PNG file it may stand before its pixels or, as ImageMagick writes it, behind them.
    Image.new("RGB", (40, 30)).save(tmp_path / "early.png", exif=exif)
    png = (tmp_path / "early.png").read_bytes()
    at = png.index(b"eXIf") - 4
    end = at + 12 + int.from_bytes(png[at : at + 4], "big")
    (tmp_path / "late.png").write_bytes(png[:at] + png[end:-12] + png[at:end] + png[-12:])
    for name in ("early.png", "late.png"):
        assert listed_image_size(tmp_path / name, problems) == (40, 30)
        record = {"file_name": str(tmp_path / name), "height": 40, "width": 30}
        assert read_image(record, "BGR").shape == (40, 30, 3)
    # No more than the header is read where nothing follows the pixels.
    (tmp_path / "torn.png").write_bytes(png[:at] + png[end:-20])
    assert listed_image_size(tmp_path / "torn.png", problems) == (30, 40)
    (tmp_path / "text.jpg").write_text("no image")
    assert listed_image_size(tmp_path / "text.jpg", problems) is None
    assert "1 images that cannot be read, left out (first: " in str(problems)
