"""The doctor finds what was planted, in every format, and says so by its exit code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.coco import load_coco_json
from PIL import Image

from nanodet_d2 import cli
from nanodet_d2.data import DetectionMapper, RandomWarp
from tests.data.broken_files import noise
from tests.data.formats import write_voc, write_yolo


def good(count: int = 4, start: int = 0) -> dict:
    """Content of ``count`` images of 96 px with a cat and a dog each."""
    numbers = range(start, start + count)
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 96, "height": 96} for i in numbers],
        "annotations": [
            {"id": 2 * i + k, "image_id": i, "category_id": (3, 8)[k], "bbox": [9, 9, 30, 15]}
            for i in numbers
            for k in range(2)
        ],
        "categories": [{"id": 8, "name": "dog"}, {"id": 3, "name": "cat"}],
    }


@pytest.fixture
def place(tmp_path):
    """Writes a data set's images and its json file; returns the json's path."""

    def write(content: dict, name: str = "train") -> str:
        images = tmp_path / name
        images.mkdir(exist_ok=True)
        for entry in content["images"]:
            if not (images / entry["file_name"]).exists():
                noise(1000 * len(name) + entry["id"]).save(images / entry["file_name"])
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(content))
        return str(path)

    return write


@pytest.fixture
def run(tmp_path, capsys):
    def examine(*arguments: str) -> tuple[int, dict, str]:
        """Exit code, content of doctor.json, and what was printed."""
        code = cli.main(["doctor", *arguments, "--output", str(tmp_path / "report")])
        written = json.loads((tmp_path / "report" / "doctor.json").read_text())
        assert written["exit_code"] == code
        return code, written, "".join(capsys.readouterr())

    return examine


def found(part: dict) -> dict[str, int]:
    return {x["what"]: x["count"] for x in part["problems"]}


def test_a_good_set_is_fine_and_described(place, run, tmp_path):
    train, val = place(good()), place(good(2, start=10), "val")
    code, report, text = run(
        *(train, "--images", str(tmp_path / "train")),
        *("--val", val, "--val-images", str(tmp_path / "val"), "--input-size", "48,96"),
    )
    assert code == 0 and "no kinds of problems" in text
    part = report["train"]
    assert part["problems"] == [] and part["images"] == 4 and part["boxes"] == 8
    assert part["classes"]["dog"] == {"boxes": 4, "images": 4}
    # 30 x 15 px in a picture of half the height: the root of 30 * 7.5 is 15.
    assert part["sizes"]["8 to 16"] == 8 and part["aspects"]["2 to 4"] == 8
    assert sum(part["sizes"].values()) == sum(part["aspects"].values()) == 8
    for name in ("train", "val"):
        assert Image.open(tmp_path / "report" / f"{name}.png").size == (1200, 800)


def test_category_names_are_not_read_as_formulas(place, run, tmp_path):
    content = good()
    content["categories"][0]["name"] = "a$_$b"
    code, report, _ = run(place(content), "--images", str(tmp_path / "train"))
    assert code == 0 and "a$_$b" in report["train"]["classes"]


def test_everything_planted_is_found(place, run, tmp_path):
    content = good(8)
    images, annotations = content["images"], content["annotations"]
    images.append({**images[0]})
    images.append({"id": 90, "file_name": "../secret.png", "width": 9, "height": 9})
    annotations.append({**annotations[0], "iscrowd": 1})
    bad = dict(image_id=1, category_id=3)
    for number, box in enumerate(
        ([90, 90, 50, 50], [200, 9, 9, 9], [9, 9, 0, 9], [9, 9, 1e999, 9])
    ):
        annotations.append({"id": 100 + number, "bbox": box, **bad})
    annotations.append({"id": 110, "bbox": [1, 1, 9, 9], "image_id": 1, "category_id": 77})
    annotations.append({"id": 111, "bbox": [1, 1, 9, 9], "image_id": 77, "category_id": 3})
    content["categories"] += [{"id": 9, "name": "ghost"}, {"id": 9, "name": "cat"}]
    place({**content, "images": [x for x in images if x["id"] != 90]})
    path = tmp_path / "train.json"
    path.write_text(json.dumps(content))
    folder = tmp_path / "train"
    (folder / "2.png").unlink()
    (folder / "3.png").write_bytes(b"no image")
    noise(5).resize((50, 40)).save(folder / "4.png")
    noise(9).save(tmp_path / "elsewhere.png")
    (folder / "6.png").unlink()
    (folder / "6.png").symlink_to(tmp_path / "elsewhere.png")

    code, report, text = run(str(path), "--images", str(folder))
    assert code == 1
    assert found(report["train"]) == {
        "image ids that are there twice": 1,
        "image files that are there twice": 1,
        "annotation ids that are there twice": 1,
        "category ids that are there twice": 1,
        "category names that are there twice": 1,
        "categories without a box in train": 1,
        "images outside the image folder": 1,
        "links that lead out of the image folder": 1,
        "images that are missing": 1,
        "images that cannot be used": 2,
        "boxes reaching beyond their image, clipped": 1,
        "boxes outside their image, dropped": 1,
        "boxes narrower or lower than 1 px, dropped": 1,
        "boxes that are not finite, dropped": 1,
        "annotations of an unknown category, dropped": 1,
        "annotations of an unknown image, dropped": 1,
    }
    assert report["train"]["crowd_share"] == pytest.approx(1 / 18)
    assert report["train"]["missing_images"] == [str(folder / "2.png")]
    assert set(report["train"]["broken_images"]) == {str(folder / f"{i}.png") for i in (3, 4)}
    assert "PROBLEM  2 images that cannot be used (first: " in text
    code, report, _ = run(str(path), "--images", str(folder), "--no-images", "--allow-outside")
    assert code == 1 and "images that cannot be used" not in found(report["train"])
    assert "images outside the image folder" not in found(report["train"])


def test_what_train_and_val_share_is_found(place, run, tmp_path):
    train = place(good(4))
    content = good(4, start=10)
    for entry, name in zip(
        content["images"], ("x.png", "1 (2).png", "2_copy.png", "3_png.rf.0a.jpg")
    ):
        entry["file_name"] = name
    val = place(
        {**content, "categories": [*content["categories"], {"id": 9, "name": "bird"}]}, "val"
    )
    shutil.copy(tmp_path / "train" / "0.png", tmp_path / "val" / "x.png")
    shutil.copy(tmp_path / "train" / "0.png", tmp_path / "train" / "3.png")
    arguments = (train, "--images", str(tmp_path / "train"), "--val", val)
    code, report, text = run(*arguments, "--val-images", str(tmp_path / "val"))
    assert code == 1 and found(report["train"]) == found(report["val"]) == {}
    assert found(report["together"]) == {
        "images of train that are in val as well": 1,
        "categories of only one of train and val": 1,
    }
    (note,) = report["together"]["notes"]
    assert note.startswith("3 images of val have the name of one of train")
    assert "1 images are there twice under other names" in str(report["train"]["notes"])
    assert "bird, in val" in text
    # The same folder twice is found without opening an image.
    code, report, _ = run(train, "--images", str(tmp_path / "train"), "--val", train, "--no-images")
    assert code == 1 and found(report["together"]) == {"images of train that are in val as well": 4}


def test_shared_images_of_a_relative_folder_are_named_once(place, run, tmp_path, monkeypatch):
    """As a problem alone: their names say nothing more."""
    place(good())
    monkeypatch.chdir(tmp_path)
    for images in ("train", "./train"):
        arguments = ("--images", images, "--val", "train.json", "--val-images", "train")
        code, report, _ = run("train.json", *arguments, "--no-images")
        assert code == 1 and report["together"]["notes"] == []
        assert found(report["together"]) == {"images of train that are in val as well": 4}


def test_other_formats(place, run, tmp_path):
    content = good()
    place(content)
    write_voc(content, tmp_path / "voc")
    names = write_yolo(content, tmp_path / "yolo")
    images = ("--images", str(tmp_path / "train"))
    _, expected, _ = run(str(tmp_path / "train.json"), *images)
    code, report, _ = run(str(tmp_path / "voc"), *images)
    assert code == 0 and report["train"]["classes"] == expected["train"]["classes"]
    code, report, _ = run(str(tmp_path / "yolo"), *images, "--classes", ",".join(names))
    assert code == 0 and report["train"]["sizes"] == expected["train"]["sizes"]
    (tmp_path / "yolo" / "0.txt").write_text(
        "0 .5 .5 nan .1\n7 .5 .5 .1 .1\nx\n0 .5 .5 .1 .1\n1 .9 .9 .4 .4"
    )
    code, report, _ = run(str(tmp_path / "yolo"), *images, "--classes", ",".join(names))
    assert code == 1 and len(found(report["train"])) == 4


@pytest.fixture
def register():
    """Registers functions that return records, or raise, as the data set "doctors_own"."""
    name = "doctors_own"

    def register_(function) -> str:
        DatasetCatalog.register(name, function)
        MetadataCatalog.get(name).thing_classes = ["cat", "dog"]
        return name

    yield register_
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


@pytest.mark.parametrize("mode", [{"bbox_mode": 0}, {}])  # XYXY_ABS, and as a training takes none
def test_a_registered_set_is_examined(register, run, place, tmp_path, mode):
    place(good())
    record = {"file_name": str(tmp_path / "train" / "0.png"), "annotations": [
        {"bbox": [9, 9, 39, 24], "category_id": 1, **mode}]}  # fmt: skip
    code, report, _ = run(register(lambda: [record]))
    assert code == 1 and found(report["train"]) == {"categories without a box in train": 1}
    assert report["train"]["sizes"] == {**report["train"]["sizes"], "64 to 128": 1}


def test_the_code_that_registers_a_set_is_imported(run, place, tmp_path, monkeypatch):
    place(good())
    (tmp_path / "doctors_sets.py").write_text(
        "from detectron2.data import DatasetCatalog, MetadataCatalog\n"
        "DatasetCatalog.register('doctors_other', lambda: [])\n"
        "MetadataCatalog.get('doctors_other').thing_classes = ['cat']\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    code, report, _ = run("doctors_other", "--imports", "doctors_sets")
    DatasetCatalog.remove("doctors_other")
    assert code == 1 and report["train"]["images"] == 0
    code, report, _ = run("doctors_third", "--imports", "doctors_fourth")
    assert code == 2 and "doctors_fourth cannot be imported" in report["error"]


def test_registered_images_of_unknown_size_are_findings(register, run, place, tmp_path):
    place(good())
    (tmp_path / "train" / "1.png").write_bytes(b"no image")
    paths = [str(tmp_path / "train" / name) for name in ("0.png", "1.png", "gone.png")]
    objects = [{"bbox": [9, 9, 39, 24], "category_id": k} for k in range(2)]
    objects += [{"category_id": 0}, {"bbox": [9, 9, 39, 24]}]
    records = [{"file_name": path, "annotations": objects} for path in paths]
    code, report, _ = run(register(lambda: records))
    assert code == 1 and found(report["train"]) == {
        "images of unknown size that cannot be read, boxes not checked": 2,
        "images that are missing": 1,
        "images that cannot be used": 1,
        "boxes that are not four numbers, dropped": 1,
        "annotations of an unknown category, dropped": 1,
    }
    assert report["train"]["missing_images"] == paths[2:]
    assert list(report["train"]["broken_images"]) == paths[1:2]
    assert report["train"]["images"] == 3 and report["train"]["boxes"] == 2


def test_whatever_a_registered_set_raises_is_one_line(register, run, place):
    content = good()
    content["annotations"][1]["id"] = content["annotations"][0]["id"]
    path = place(content)
    raised: list[BaseException] = [AssertionError("a\nb"), KeyError("x"), OSError("gone")]
    functions = [lambda error=error: _raise(error) for error in raised]
    functions.append(lambda: load_coco_json(path, "", "doctors_own"))
    functions += [lambda: [{}], lambda: [3], lambda: None]
    functions.append(lambda: [{"file_name": "x", "height": "high", "width": 9}])
    functions.append(
        lambda: [{"file_name": "x", "height": 9, "width": 9, "annotations": [{"bbox": [1]}]}]
    )
    name = register(_raise)
    for function in functions:
        DatasetCatalog[name] = function
        code, report, text = run(name)
        assert code == 2 and f"doctor: data set '{name}' cannot be read: " in text
        assert report["error"].count("\n") == 0 and "Traceback" not in text


def _raise(error: Exception) -> None:
    raise error


def test_a_fault_of_any_kind_is_not_exit_code_1(place, run, monkeypatch):
    monkeypatch.setattr("nanodet_d2.doctor.command.split_content", lambda *_: _raise(KeyError(7)))
    path = place(good())
    code, report, text = run(path, "--images", "x")
    assert code == 2 and report["error"] == f"{path} cannot be examined: KeyError: 7"
    assert text == f"nanodet-d2 doctor: {report['error']}\n"


def test_a_config_is_examined_as_it_would_be_trained(run, root, shapes_overrides):
    config = root / "projects" / "nanodet_plus" / "configs" / "demo_shapes.py"
    code, report, _ = run("--config", str(config), *shapes_overrides)
    assert code == 0 and report["train"]["images"] == 24 and report["val"]["images"] == 8
    assert report["train"]["input_size"] == [160, 160]


def test_images_may_have_as_many_pixels_as_for_the_mapper(
    place, run, root, tmp_path, shapes_overrides
):
    arguments = (place(good()), "--images", str(tmp_path / "train"))
    code, report, _ = run(*arguments, "--max-pixels", str(96 * 96))
    assert code == 0
    code, report, text = run(*arguments, "--max-pixels", str(96 * 96 - 1))
    assert code == 1 and found(report["train"]) == {"images that cannot be used": 4}
    assert "96 x 96 pixels declared, max_pixels is 9215" in text
    assert run(*arguments, "--max-pixels", "0")[0] == 2

    config = root / "projects" / "nanodet_plus" / "configs" / "demo_shapes.py"
    for limited, other, loader in (("train", "val", "train"), ("val", "train", "test")):
        override = f"+dataloader.{loader}.mapper.max_pixels=999"
        code, report, _ = run("--config", str(config), *shapes_overrides, override)
        assert code == 1 and report[other]["problems"] == []
        assert list(found(report[limited])) == ["images that cannot be used"]


def test_a_panorama_is_fine_for_the_doctor_as_for_the_mapper(place, run, tmp_path):
    content = good(1)
    content["images"][0].update(width=33_000, height=60)
    content["annotations"][0]["bbox"], content["annotations"][1]["bbox"] = (
        [9, 9, 900, 30],
        [0, 0, 99, 9],
    )
    (tmp_path / "train").mkdir()
    Image.new("RGB", (33_000, 60)).save(tmp_path / "train" / "0.png")
    assert run(place(content), "--images", str(tmp_path / "train"))[0] == 0
    mapper = DetectionMapper(is_train=False, augmentations=[RandomWarp((32, 32))])
    assert mapper({"file_name": str(tmp_path / "train" / "0.png")})["image"].shape == (3, 32, 32)


def test_what_cannot_be_read_ends_with_code_2(place, run, tmp_path, capsys):
    path = place(good())
    (tmp_path / "torn.json").write_text(Path(path).read_text()[:-9])
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").touch()
    for arguments, words in (
        ((str(tmp_path / "torn.json"), "--images", "x"), "torn.json is not valid json"),
        ((str(tmp_path / "nowhere.json"),), "nowhere.json not found"),
        ((path,), "needs --images"),
        ((str(tmp_path / "pictures"), "--images", "x"), "a folder of .png files; allowed"),
        (("coco_2017_trian",), "'coco_2017_trian' is not registered"),
        (("coco_2017_val",), "doctor: "),  # registered, but its files are not here
    ):
        code, report, text = run(*arguments)
        assert code == 2 and words in text and "Traceback" not in text
        assert report["error"] and "train" not in report
    for arguments in (
        (),
        (path, "more"),
        (path, "--input-size", "0"),
        ("--config", "x", "--val", "y"),
    ):
        assert cli.main(["doctor", *arguments]) == 2
