"""``nanodet-d2 data convert``: the same boxes, nothing overwritten, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from nanodet_d2 import cli
from nanodet_d2.data.conversion import convert, writing
from nanodet_d2.data.readers import find_layout
from nanodet_d2.data.sources import SplitSource, read_split
from tests.data.formats import write_voc, write_yolo


def boxes(folder: Path) -> dict[str, dict[str, list]]:
    """Split -> image -> its boxes with their classes, in order."""
    found: dict[str, dict[str, list]] = {}
    for split, files in find_layout(str(folder)).splits.items():
        content = read_split(SplitSource(files))
        names = {x["id"]: x["name"] for x in content["categories"]}
        images = {x["id"]: Path(x["file_name"]).name for x in content["images"]}
        found[split] = {name: [] for name in images.values()}
        for x in content["annotations"]:
            found[split][images[x["image_id"]]].append((names[x["category_id"]], *x["bbox"]))
    return found


def write_images(folder: Path, *names: str) -> None:
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 255, (60, 80, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / name), pixels)


@pytest.fixture
def drawn_set(shapes) -> Path:
    return Path(shapes["train"]["images"]).parent


@pytest.fixture
def layouts(drawn_set, tmp_path) -> dict[str, Path]:
    """The drawn set in all layouts."""
    voc, yolo = tmp_path / "voc" / "VOC2012", tmp_path / "yolo"
    (voc / "ImageSets" / "Main").mkdir(parents=True)
    for split in ("train", "val"):
        content = json.loads((drawn_set / "annotations" / f"instances_{split}.json").read_text())
        images = content["images"]
        for image in images:
            old = drawn_set / split / image["file_name"]
            image["file_name"] = f"{split}_{image['file_name']}"
            for place in (voc / "JPEGImages", yolo / "images" / split):
                place.mkdir(parents=True, exist_ok=True)
                shutil.copy(old, place / image["file_name"])
        write_voc(content, voc / "Annotations")
        lines = [Path(x["file_name"]).stem for x in images]
        (voc / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(lines))
        names = write_yolo(content, yolo / "labels" / split)
    (yolo / "data.yaml").write_text(
        json.dumps({"train": "images/train", "val": "images/val", "names": names})
    )
    return {"coco": drawn_set, "voc": voc.parent, "yolo": yolo}


@pytest.mark.parametrize("name", ["coco", "voc", "yolo"])
def test_what_is_written_is_read_back_the_same(name, layouts, tmp_path, capsys):
    source, output = layouts[name], tmp_path / "new" / "coco"
    arguments = ["data", "convert", str(source), "--to", "coco", "--output", str(output)]
    assert cli.main([*arguments, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert find_layout(str(output)).name == "coco"
    expected = boxes(source)
    assert boxes(output) == expected
    assert facts["splits"]["train"] == {
        "images": 24, "annotations": sum(map(len, expected["train"].values()))
    }  # fmt: skip
    assert sorted(x.name for x in output.iterdir()) == ["annotations", "train", "val"]
    assert all((output / "train" / image).is_file() for image in expected["train"])
    assert os.listdir(output.parent) == ["coco"]
    assert cli.main(arguments) == 2
    assert "is there already; nothing is overwritten" in capsys.readouterr().err


def test_images_are_links_or_copies(drawn_set, tmp_path):
    data = {"source": str(drawn_set)}
    convert(data, tmp_path / "links")
    convert(data, tmp_path / "copies", copy=True)
    for image in sorted((drawn_set / "train").iterdir())[:3]:
        link, copy = (tmp_path / x / "train" / image.name for x in ("links", "copies"))
        assert link.samefile(image) and not copy.samefile(image)
        assert copy.read_bytes() == image.read_bytes()


def test_where_it_fails_nothing_is_left(drawn_set, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(writing.os, "link", fail)
    monkeypatch.setattr(writing.shutil, "copyfile", fail)
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty"):
        with pytest.raises(OSError, match="disk full"):
            convert({"source": str(drawn_set)}, tmp_path / name)
    assert os.listdir(tmp_path) == ["empty"] and os.listdir(tmp_path / "empty") == []
    monkeypatch.undo()
    convert({"source": str(drawn_set)}, tmp_path / "empty")
    assert boxes(tmp_path / "empty") == boxes(drawn_set)


def test_odd_entries_are_left_out_and_counted(tmp_path):
    folder = tmp_path / "set"
    write_images(folder, "train/a/1.png", "train/b/1.png")
    content = {
        "images": [
            {"id": i, "file_name": name, "width": 80, "height": 60}
            for i, name in enumerate(("a/1.png", "b/1.png", "gone.png"))
        ],
        "annotations": [
            {"id": 7, "image_id": 0, "category_id": 3, "bbox": [1, 2, 30, 40], "iscrowd": 1},
            {"id": 8, "image_id": 1, "category_id": 3, "segmentation": [[1, 2, 9, 2, 9, 30]]},
            {"id": 9, "image_id": 1, "category_id": 3, "bbox": [1, 2, 30]},
            {"id": 10, "image_id": 2, "category_id": 3, "bbox": [1, 2, 3, 4]},
            "nonsense",
        ],
        "categories": [{"id": 3, "name": "кот 1"}],
    }
    (folder / "train.json").write_text(json.dumps(content))
    done = convert({"source": str(folder)}, tmp_path / "new")
    counts = {what: count for what, count, _ in done.problems}
    assert counts == {
        "images that are missing, left out": 1,
        "annotations without a box of numbers, left out": 2,
    }
    written = json.loads((tmp_path / "new" / "annotations" / "instances_train.json").read_text())
    assert [x["file_name"] for x in written["images"]] == ["a/1.png", "b/1.png"]
    crowd, polygon = written["annotations"]
    assert crowd["iscrowd"] == 1 and crowd["bbox"] == [1, 2, 30, 40] and crowd["area"] == 1200
    assert polygon["bbox"] == [1, 2, 8, 28] and polygon["segmentation"] == [[1, 2, 9, 2, 9, 30]]
    assert written["categories"] == [{"id": 3, "name": "кот 1"}]


def write_cvat(folder: Path) -> None:
    write_images(folder / "images", "a.jpg", "b b.jpg")
    (folder / "annotations.xml").write_text(
        "<annotations><version>1.1</version><meta><task><labels>"
        "<label><name>cat</name><attributes/></label>"
        "<label><name>hot dog</name><attributes/></label></labels></task></meta>"
        '<image id="0" name="a.jpg" width="80" height="60">'
        '<box label="hot dog" occluded="0" xtl="10.5" ytl="10" xbr="30.5" ybr="40" z_order="0"/>'
        '<polygon label="cat" occluded="0" points="1,1;20,1;20,15" z_order="0"/></image>'
        '<image id="1" name="b b.jpg" width="80" height="60"/></annotations>'
    )


def test_labelme(tmp_path):
    folder = tmp_path / "set"
    write_images(folder, "train/a.png", "train/b.png", "val/c.png")
    for split, name, shapes in (
        ("train", "a", [("cat", "rectangle", [[30, 40], [10, 12]]),
                        ("собака", "circle", [[20, 30], [23, 34]])]),
        ("train", "b", [("cat", "line", [[1, 2], [3, 4]])]),
        ("val", "c", [("cat", None, [[1, 2], [9, 2], [5, 20]])]),
        ("val", "gone", []),
    ):  # fmt: skip
        content = {
            "version": "5.4",
            "shapes": [{"label": x, "shape_type": kind, "points": y} for x, kind, y in shapes],
            "imagePath": f"..\\{split}\\{name}.png",
            "imageData": None,
        }
        (folder / split / f"{name}.json").write_text(json.dumps(content))
    done = convert({"source": str(folder)}, tmp_path / "new")
    assert done.what == "labelme"
    assert boxes(tmp_path / "new") == {
        "train": {"a.png": [("cat", 10, 12, 20, 28), ("собака", 15, 25, 10, 10)], "b.png": []},
        "val": {"c.png": [("cat", 1, 2, 8, 18)]},
    }
    assert {what: count for what, count, _ in done.problems} == {
        "images that are missing, left out": 1,
        "shapes of the kind circle, turned into their boxes": 1,
        "shapes of the kind line, left out": 1,
        "shapes of the kind polygon, turned into their boxes": 1,
    }


def test_label_studio(tmp_path):
    folder = tmp_path / "set"
    write_images(folder, "images/1a-a b.png", "images/b.png", "images/c.png")

    def task(image: str, *annotations: list) -> dict:
        return {"data": {"n": 3, "image": image}, "annotations": [
            {"result": [{"type": kind, "value": {kind: ["cat"], **value}} for kind, value in x]}
            for x in annotations
        ]}  # fmt: skip

    box = {"x": 50, "y": 10, "width": 25, "height": 50}
    skipped = task("/data/upload/c.png", [("rectanglelabels", box)])
    skipped["annotations"][0]["was_cancelled"] = True
    content = [
        task(
            "/data/upload/2/1a-a%20b.png",
            [
                ("rectanglelabels", box),
                ("rectanglelabels", {**box, "rotation": 90}),
                ("polygonlabels", {"points": [[0, 0], [50, 0], [50, 50]]}),
                ("choices", {}),
            ],
            [("rectanglelabels", box)],
        ),
        task("/data/local-files/?d=photos/b.png"),
        skipped,
    ]
    (folder / "project.json").write_text(json.dumps(content))
    done = convert({"source": str(folder)}, tmp_path / "new")
    found = boxes(tmp_path / "new")["train"]
    assert list(found) == ["1a-a b.png", "b.png", "c.png"] and not found["b.png"] + found["c.png"]
    assert [x[0] for x in found["1a-a b.png"]] == ["cat"] * 3
    expected = [[40, 6, 20, 30], [10, 6, 30, 20], [0, 0, 40, 30]]  # of 80 x 60 pixels
    assert np.allclose([x[1:] for x in found["1a-a b.png"]], expected)
    assert {what: count for what, count, _ in done.problems} == {
        "images that were annotated twice, of which the first counts": 1,
        "polygons and rotated boxes, turned into upright ones": 2,
        "results of the kind choices, left out": 1,
    }


def test_createml_and_files_that_are_not_as_they_should_be(tmp_path):
    folder = tmp_path / "set"
    write_images(folder, "train/a.png", "test/a.png")
    place = {"x": 40, "y": 30, "width": 20, "height": 10}
    entry = {"image": "a.png", "annotations": [{"label": "cat", "coordinates": place}]}
    for split, more in (("train", []), ("test", [{"image": "a.png"}])):
        path = folder / split / "_annotations.createml.json"
        path.write_text(json.dumps([entry, *more]))
    (folder / "torn.json").write_text("[{")
    done = convert({"source": str(folder)}, tmp_path / "new", form="createml")
    cat = {"a.png": [("cat", 30, 25, 20, 10)]}
    assert boxes(tmp_path / "new") == {"train": cat, "test": cat}
    ((what, count, first),) = done.problems
    assert "not as createml writes them" in what and count == 1 and "'annotations'" in first
    with pytest.raises(ValueError, match="has no file of label_studio; it looks like"):
        convert({"source": str(folder)}, tmp_path / "other", form="label_studio")


def test_images_outside_the_folder_are_not_taken(tmp_path):
    write_images(tmp_path, "secret.png", "linked/train/a.png", "named/b.png")
    secret = str(tmp_path / "secret.png")
    shapes = {"shapes": [{"label": "cat", "shape_type": "rectangle", "points": [[1, 1], [9, 9]]}]}
    for name, path in (("a", secret), ("c", "../secret.png"), ("b", "b.png")):
        content = {**shapes, "imagePath": path}
        (tmp_path / "named" / f"{name}.json").write_text(json.dumps(content))
    done = convert({"source": str(tmp_path / "named")}, tmp_path / "new")
    assert list(boxes(tmp_path / "new")["train"]) == ["b.png"]
    assert [(what, n) for what, n, _ in done.problems] == [("images that are missing, left out", 2)]
    (tmp_path / "linked" / "train" / "b.png").symlink_to(secret)
    content = {
        "images": [
            {"id": i, "file_name": f"{x}.png", "width": 80, "height": 60}
            for i, x in enumerate("ab")
        ],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9]}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "linked" / "train.json").write_text(json.dumps(content))
    data = {"source": str(tmp_path / "linked")}
    with pytest.raises(ValueError, match="1 images are links that lead out of .*b.png"):
        convert(data, tmp_path / "other")
    convert({**data, "allow_outside": True}, tmp_path / "other")
    assert (tmp_path / "other" / "train" / "b.png").samefile(secret)


def test_without_datumaro_its_extra_is_named(tmp_path, monkeypatch, capsys):
    for name in list(sys.modules):
        if name.partition(".")[0] == "datumaro":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "datumaro", None)
    write_cvat(tmp_path / "cvat")
    arguments = ["data", "convert", str(tmp_path / "cvat"), "--output", str(tmp_path / "new")]
    assert cli.main(arguments) == 1
    told = capsys.readouterr().err
    assert "it looks like CVAT's XML" in told and "pip install 'nanodet-d2[datasets]'" in told
    assert cli.main([*arguments, "--from", "yolo"]) == 2  # asked for, it is not tried otherwise
    assert "has no data set of the layout yolo" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
