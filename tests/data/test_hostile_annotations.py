"""Annotation files that lead out of their folder, are of another format, or other classes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances
from PIL import Image

from nanodet_d2.data import split_name
from nanodet_d2.data.formats import looks_like
from nanodet_d2.data.paths import image_path
from nanodet_d2.data.readers.coco import read_coco_json
from nanodet_d2.engine import DetectionEvaluator


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in ("images/a.png", "images/sub/b.png", "secret/c.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30)).save(path)
    return tmp_path


def coco(*names: str, **changes) -> dict:
    images = [
        {"id": i, "file_name": name, "width": 40, "height": 30} for i, name in enumerate(names)
    ]
    return {
        "images": images,
        "annotations": [],
        "categories": [{"id": 1, "name": "cat"}],
        **changes,
    }


def load(folder: Path, content, images: str = "images", **section) -> list[str]:
    """Files of the records, relative to ``folder``."""
    path = folder / "train.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    split = {"name": "", "json": str(path), "images": str(folder / images)}
    name = split_name({"train": split, "val": split, **section}, "train")
    try:
        records = DatasetCatalog.get(name)
    finally:
        DatasetCatalog.remove(name)
    return [os.path.relpath(x["file_name"], folder) for x in records]


def test_names_stay_in_the_image_folder(folder):
    assert load(folder, coco("a.png", "sub/b.png", "sub/../a.png")) == [
        "images/a.png",
        "images/sub/b.png",
        "images/a.png",
    ]
    for name in ("../secret/c.png", "sub/../../secret/c.png", str(folder / "secret" / "c.png")):
        with pytest.raises(ValueError, match=r"train.json: images\[1\]: .* is outside the image f"):
            load(folder, coco("a.png", name))
        assert load(folder, coco(name), allow_outside=True) == ["secret/c.png"]
    with pytest.raises(ValueError, match="outside the image folder s3://x"):
        image_path("s3://x", "../y")


def test_links_stay_in_the_image_folder(folder):
    images = folder / "images"
    (images / "inside.png").symlink_to("sub/b.png")
    (images / "outside.png").symlink_to(folder / "secret" / "c.png")
    (images / "all").symlink_to(folder / "secret")
    (folder / "linked").symlink_to(images)
    assert load(folder, coco("inside.png"))
    assert load(folder, coco("a.png", "sub/b.png", "inside.png"), images="linked")
    for name in ("outside.png", "all/c.png"):
        with pytest.raises(ValueError, match=f"1 of the 2 images .* links that lead .*{name}"):
            load(folder, coco("a.png", name))
        assert load(folder, coco(name), allow_outside=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (coco("a.png", annotations=[5, None, {}, {"image_id": []}]), None),
        (coco("a.png", images=[7]), r"images\[0\] is 7; needed: an object"),
        (coco("a.png", images={}), "is not COCO: found"),
        (coco(""), r"images\[0\] has the file_name ''; allowed: a name"),
        (coco("a.png", categories=[{"id": [1], "name": "x"}]), r"categories\[0\] has the id \[1\]"),
        (coco("a.png", categories=[{"id": 1, "name": None}]), r"categories\[0\] has the name None"),
        ("[" * 100_000, "is not valid json"),
        ('{"images": 1' + "0" * 5000 + "}", "is not valid json"),
        ("\ufeff" + json.dumps(coco("a.png")), None),
    ],
)
def test_entries_are_checked_with_their_place(folder, content, message):
    if message is None:
        assert load(folder, content) == ["images/a.png"]
        return
    with pytest.raises(ValueError, match=message) as error:
        load(folder, content)
    assert "train.json" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("side", [0, -4, 2.5, "40", None, True, float("nan"), float("inf"), 2**40])
def test_sizes_are_whole_pixels(folder, side):
    content = coco("a.png")
    content["images"][0]["width"] = side
    with pytest.raises(ValueError, match=r"images\[0\] has the width .*; allowed: a whole number"):
        load(folder, content)
    content["images"][0]["width"] = 40.0
    assert load(folder, content)


WRONG = {
    "labelme.json": ('{"shapes": [], "imagePath": "a.png"}', "labelme"),
    "via.json": ('{"_via_img_metadata": {}}', "a VIA project"),
    "results.json": ('[{"image_id": 1, "category_id": 1, "bbox": [], "score": 1}]', "COCO results"),
    "createml.json": ('[{"image": "a.png", "annotations": []}]', "CreateML"),
    "studio.json": ('[{"id": 1, "data": {}}]', "a Label Studio export"),
    "info.json": ('{"images": [], "categories": []}', "COCO without annotations"),
    "a.xml": ("<?xml version='1.0'?><annotation><object/></annotation>", "one file of Pascal VOC"),
    "cvat.xml": ("<annotations><image/></annotations>", "CVAT's XML"),
    "a.txt": ("0 0.5 0.5 0.1 0.1\n", "one file of YOLO"),
    "data.yaml": ("path: x\nnames:\n  0: cat\n", "the description of a YOLO data set"),
    "table.csv": ("a.png,1,2,3,4,cat\n", "a table"),
    "lines.json": ('{"a": 1}\n{"a": 2}\n', "several json objects, one a line"),
    "empty.json": ("", "an empty file"),
    "binary.json": ("\x01\x00\x02", "a binary file"),
    "prose.json": ("see you", "no format that is known"),
}


@pytest.mark.parametrize("name", WRONG)
def test_files_of_other_formats_are_recognised(tmp_path, name):
    content, words = WRONG[name]
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=f"{name} .*it looks like {words}"):
        read_coco_json(str(tmp_path / name))


def test_folders_of_other_formats_are_recognised(folder):
    images = str(folder / "images")

    def section(**split) -> dict:
        source = {"name": "", "images": images, **split}
        return {"train": source, "val": source, "classes": ["cat"]}

    for kind, name, content in (
        ("voc", "a.xml", "<annotation/>"),
        ("yolo", "a.txt", "0 0.5 0.5 0.1 0.1"),
        ("coco", "train.json", json.dumps(coco("a.png"))),
        ("cvat", "x.xml", "<annotations/>"),
    ):
        (folder / kind).mkdir()
        (folder / kind / name).write_text(content)
    for form, kind, words in (
        ("voc", "yolo", "looks like YOLO"),
        ("yolo", "voc", "looks like Pascal VOC"),
        ("voc", "coco", "a folder with COCO .*, train.json"),
        ("json", "voc", "is no file: it is Pascal VOC"),
        ("json", "yolo", "is no file: it is YOLO"),
    ):
        with pytest.raises(ValueError, match=words):
            split_name(section(**{form: str(folder / kind)}), "train")
    assert looks_like(str(folder / "nowhere")) == "no format that is known here"
    with pytest.raises(ValueError, match="names no object.*CVAT's XML"):
        split_name({**section(voc=str(folder / "cvat")), "classes": None}, "train")


def test_classes_of_val_that_train_lacks_are_an_error_with_both_lists(folder):
    paths = {}
    for split, names in (("train", ["cat", "dog"]), ("val", ["cat", "bird", "dog"])):
        categories = [{"id": i, "name": name} for i, name in enumerate(names)]
        paths[split] = folder / f"{split}.json"
        paths[split].write_text(json.dumps(coco("a.png", categories=categories)))
    images = str(folder / "images")
    data = {k: {"name": "", "json": str(v), "images": images} for k, v in paths.items()}
    with pytest.raises(
        ValueError,
        match="data.val has the classes cat, bird, dog, but the model is for cat, dog: .*"
        "Only in data.val: bird; lacking in it: none",
    ):
        split_name(data, "val")


@pytest.mark.parametrize(
    "change",
    [
        {"bbox": None}, {"bbox": [1, 1, float("nan"), 4]}, {"bbox": "abcd"}, {"image_id": [0]},
        {"category_id": {}}, 5,
    ],
)  # fmt: skip
def test_evaluation_goes_on_beside_a_bad_annotation(folder, change):
    box = {"id": 1, "image_id": 0, "category_id": 1, "bbox": [2, 3, 20, 9], "area": 180}
    bad = {**box, "id": 2, **change} if isinstance(change, dict) else change
    images = str(folder / "images")
    for name, boxes in (("good", [box]), ("bad", [box, bad])):
        path = folder / f"{name}.json"
        path.write_text(json.dumps(coco("a.png", annotations=boxes)))
        split = {"name": "", "json": str(path), "images": images}
        dataset = split_name({"train": split, "val": split}, "val")
        evaluator = DetectionEvaluator(dataset, str(folder / name))
        evaluator.reset()
        (record,) = DatasetCatalog.get(dataset)
        found = Instances((30, 40), scores=torch.tensor([0.9]), pred_classes=torch.tensor([0]))
        found.pred_boxes = Boxes(torch.tensor([[2.0, 3.0, 22.0, 12.0]]))
        evaluator.process([record], [{"instances": found}])
        assert evaluator.evaluate()["bbox"]["AP"] == pytest.approx(100)
        has_file = MetadataCatalog.get(dataset).json_file == str(path)
        assert has_file == (name == "good")


def voc(folder: Path, stem: str, *names: str) -> None:
    folder.mkdir(exist_ok=True)
    box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    objects = "".join(f"<object><name>{name}</name>{box}</object>" for name in names)
    (folder / f"{stem}.xml").write_text(f"<annotation>{objects}</annotation>")


def test_a_voc_val_that_shows_fewer_classes_is_fine_and_more_are_not(folder):
    voc(folder / "train", "a", "cat", "dog")
    voc(folder / "val", "a", "dog")
    voc(folder / "more", "a", "dog", "bird")
    images = str(folder / "images")

    def data(val: str) -> dict:
        paths = {"train": folder / "train", "val": folder / val}
        return {k: {"name": "", "voc": str(v), "images": images} for k, v in paths.items()}

    (record,) = DatasetCatalog.get(split_name(data("val"), "val"))
    assert [x["category_id"] for x in record["annotations"]] == [1]
    with pytest.raises(ValueError, match="Only in data.val: bird; lacking in it: cat"):
        split_name(data("more"), "val")


def test_voc_files_name_no_image_outside(folder):
    """Of what they name, only the stem counts, and it is looked up in the folder's listing."""
    voc(folder / "train", "a", "cat")
    text = (folder / "train" / "a.xml").read_text()
    for name in ("../secret/c.png", str(folder / "secret" / "c.png")):
        named = text.replace("<annotation>", f"<annotation><filename>{name}</filename>")
        (folder / "train" / "lost.xml").write_text(named)
        split = {"name": "", "voc": str(folder / "train"), "images": str(folder / "images")}
        records = DatasetCatalog.get(split_name({"train": split, "val": split}, "train"))
        assert [x["file_name"] for x in records] == [str(folder / "images" / "a.png")]


def test_files_that_grow_when_read_are_refused_at_once(folder):
    """Entities of entities, a thousand million in all."""
    entities = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 10))
    text = f'<!DOCTYPE x [<!ENTITY e0 "ha">{entities}]><annotation>&e9;</annotation>'
    (folder / "bomb").mkdir()
    (folder / "bomb" / "a.xml").write_text(text)
    split = {"name": "", "voc": str(folder / "bomb"), "images": str(folder / "images")}
    with pytest.raises(ValueError, match="names no object.*1 files that are not XML"):
        split_name({"train": split, "val": split}, "train")


def test_pipes_are_not_opened(folder):
    if not hasattr(os, "mkfifo"):
        pytest.skip("no pipes here")
    labels = folder / "labels"
    labels.mkdir()
    (labels / "a.txt").write_text("0 0.5 0.5 0.1 0.1")
    os.mkfifo(folder / "images" / "pipe.png")
    os.mkfifo(labels / "sub.txt")
    split = {"name": "", "yolo": str(labels), "images": str(folder / "images")}
    data = {"train": split, "val": split, "classes": ["cat"]}
    assert len(DatasetCatalog.get(split_name(data, "train"))) == 2
