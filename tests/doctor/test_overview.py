"""``nanodet-d2 data info`` and ``doctor FOLDER``: what lies in a folder with all splits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import pytest
from PIL import Image

from nanodet_d2 import cli
from nanodet_d2.doctor.overview import choose_records
from tests.data.broken_files import noise
from tests.data.formats import write_voc, write_yolo


@pytest.fixture
def info(tmp_path, capsys):
    def look(folder: Path, *arguments: str) -> tuple[dict, str]:
        """Facts and text."""
        told = []
        for more in (["--json"], []):
            output = str(tmp_path / "drawn")
            assert (
                cli.main(["data", "info", str(folder), "--output", output, *arguments, *more]) == 0
            )
            told.append(capsys.readouterr().out)
        return json.loads(told[0]), told[1]

    return look


@pytest.fixture
def drawn_set(shapes) -> Path:
    return Path(shapes["train"]["images"]).parent


def write_set(folder: Path, split: str, names: list[str], boxes: dict[int, list[int]]) -> dict:
    """A COCO split of 64 px images: image number -> classes of its boxes."""
    images = [{"id": i, "file_name": f"{split}{i}.png", "width": 64, "height": 64} for i in boxes]
    annotations = [
        {"id": 100 * i + k, "image_id": i, "category_id": 5 + label, "bbox": [8 * k, 9, 20, 30]}
        for i, labels in boxes.items()
        for k, label in enumerate(labels)
    ]
    categories = [{"id": 5 + i, "name": name} for i, name in enumerate(names)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / split).mkdir(parents=True)
    for image in images:
        noise(1000 * len(split) + image["id"]).resize((64, 64)).save(
            folder / split / image["file_name"]
        )
    (folder / f"{split}.json").write_text(json.dumps(content), encoding="utf-8")
    return content


def test_a_folder_is_described_and_drawn(info, drawn_set):
    facts, text = info(drawn_set)
    assert facts["layout"] == "coco" and len(facts["classes"]) == 7
    assert facts["trained_on"] == "train" and facts["evaluated_on"] == "val"
    for split, count in (("train", 24), ("val", 8)):
        told, content = facts["splits"][split], json.loads(
            (drawn_set / "annotations" / f"instances_{split}.json").read_text()
        )  # fmt: skip
        assert told["images"] == count and told["boxes"] == len(content["annotations"])
        assert sum(told["classes"].values()) == told["boxes"]
        empty = count - len({x["image_id"] for x in content["annotations"]})
        assert told["images_without_boxes"] == empty
        sheet = cv2.imread(told["sheet"])
        rows = 3 if split == "train" else 2
        assert sheet.shape == (40 + rows * 488, 4 * 488, 3)
        before = Path(told["sheet"]).read_bytes()
        assert info(drawn_set)[0]["splits"][split]["sheet"] == told["sheet"]
        assert Path(told["sheet"]).read_bytes() == before
    boxes = facts["splits"]["train"]["boxes"], facts["splits"]["val"]["boxes"]
    lines = [line.split() for line in text.splitlines()]
    assert ["train", "val"] in lines and ["boxes", *map(str, boxes)] in lines
    assert "COCO, 7 classes" in text and "trained on: train; evaluated on: val" in text


def test_all_layouts_count_the_same(info, drawn_set, tmp_path):
    voc, yolo = tmp_path / "voc", tmp_path / "yolo"
    for split in ("train", "val"):
        content = json.loads((drawn_set / "annotations" / f"instances_{split}.json").read_text())
        shutil.copytree(drawn_set / split, voc / split)
        write_voc(content, voc / split)
        shutil.copytree(drawn_set / split, yolo / "images" / split)
        names = write_yolo(content, yolo / "labels" / split)
    (yolo / "data.yaml").write_text(
        json.dumps({"train": "images/train", "val": "images/val", "names": names})
    )
    told = [info(folder, "--images", "0")[0] for folder in (drawn_set, voc, yolo)]
    assert [x["layout"] for x in told] == ["coco", "voc", "yolo"]
    for split in ("train", "val"):
        for key in ("images", "boxes", "images_without_boxes", "classes"):
            first, *others = (x["splits"][split][key] for x in told)
            assert all(other == first for other in others)
        assert told[0]["splits"][split]["sheet"] is None


def test_a_part_of_train_is_for_validation_and_test_is_kept(info, tmp_path):
    folder = tmp_path / "set"
    write_set(folder, "train", ["cat", "dog"], {i: [i % 2] for i in range(20)})
    facts, text = info(folder)
    assert facts["evaluated_on"] == "a part of train, data.val_share=0.2"
    sizes = {name: split["images"] for name, split in facts["splits"].items()}
    assert sizes == {"train": 16, "val, of train": 4}
    folder = Path(shutil.copytree(folder, tmp_path / "more"))
    write_set(folder, "test", ["cat", "dog"], {i: [0, 1] for i in range(3)})
    facts, text = info(folder)
    assert facts["evaluated_on"] == "test" and "test is never trained on" in text
    facts, _ = info(folder, "data.val_share=0.3")
    sizes = {name: split["images"] for name, split in facts["splits"].items()}
    assert sizes == {"train": 14, "val, of train": 6, "test": 3}


def test_what_cannot_be_divided_is_told_all_the_same(info, tmp_path):
    write_set(tmp_path / "set", "train", ["cat"], {0: [0]})
    facts, text = info(tmp_path / "set")
    assert facts["trained_on"] is None and "cannot be divided" in facts["why"]
    assert facts["splits"]["train"]["boxes"] == 1 and "cannot be trained on as it is" in text


def test_thousands_of_classes_other_scripts_and_turned_images(info, tmp_path):
    names = [f"класс {i}" for i in range(3000)]
    folder = tmp_path / "набор"
    content = write_set(folder, "train", names, {0: [0, 2999], 1: [7] * 3, 2: []})
    turned = Image.new("RGB", (48, 80))
    turned.getexif()[274] = 6  # shown turned by 90 degrees: 80 wide, 48 high
    turned.save(folder / "train" / "train0.png", exif=turned.getexif())
    content["images"][0].update(width=80, height=48)
    content["annotations"][0]["bbox"] = [60, 9, 15, 30]
    content["annotations"].append({"id": 9, "image_id": 0, "category_id": 5, "bbox": [0, 0, 0, 9]})
    (folder / "train.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    write_set(folder, "val", names, {0: [7]})
    facts, text = info(folder)
    train = facts["splits"]["train"]
    assert train["classes"]["класс 2999"] == 1 and train["images_without_boxes"] == 1
    whats = {x["what"]: x["count"] for x in train["problems"]}
    assert whats["boxes narrower or lower than 1 px, dropped"] == 1
    assert not any("cannot be used" in what for what in whats)  # of another size, if not turned
    assert "класс 7 " in text and "… 2980 more" in text
    sheet = cv2.imread(train["sheet"])
    assert sheet.shape == (40 + 488, 3 * 488, 3)
    # The box of the black picture of 80 x 48, drawn at six times its size.
    cell = sheet[40 : 40 + 288, :480]
    assert cell[60:230, 352:368].max() > 150 and cell[100:200, 380:430].max() < 60


def test_images_that_show_all_classes_are_drawn_first():
    def records(*labels: set[int]) -> list[dict]:
        return [
            {"n": i, "annotations": [{"category_id": x} for x in found]}
            for i, found in enumerate(labels)
        ]

    many = records(*[{0}] * 17, {0, 1}, *[{0}] * 20, {2}, set())
    order = [x["n"] for x in choose_records(many, 4)]
    assert order[:2] == [17, 38] and order[2:5] == [0, 10, 20]
    assert sorted(order) == list(range(40))  # others take the place of those that are broken
    assert list(choose_records([], 4)) == []


def test_unreadable_images_are_replaced_and_counted(info, tmp_path):
    folder = tmp_path / "set"
    write_set(folder, "train", ["cat"], {i: [0] for i in range(6)})
    write_set(folder, "val", ["cat"], {0: [0]})
    (folder / "train" / "train0.png").write_bytes(b"torn")
    (folder / "train" / "train1.png").unlink()
    facts, text = info(folder, "--images", "4")
    train = facts["splits"]["train"]
    whats = {x["what"]: x["count"] for x in train["problems"]}
    assert whats["images that are missing"] == 1
    assert whats["images that cannot be used, among those that were to be drawn"] == 1
    assert "PROBLEM  1 images that are missing" in text
    assert cv2.imread(train["sheet"]).shape == (40 + 488, 4 * 488, 3)


def test_what_could_be_several_is_asked_back(tmp_path, drawn_set, capsys):
    folder = tmp_path / "set"
    shutil.copytree(drawn_set, folder)
    content = json.loads((folder / "annotations" / "instances_train.json").read_text())
    write_voc(content, folder / "train")
    arguments = ["data", "info", str(folder), "--output", str(tmp_path / "drawn")]
    assert cli.main(arguments) == 2
    told = capsys.readouterr().err
    assert "could be COCO (data.layout=coco); Pascal VOC" in told and "choose one" in told
    assert not (tmp_path / "drawn").exists()
    assert cli.main([*arguments, "--layout", "coco", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["layout"] == "coco"
    assert cli.main([*arguments, "--layout", "kitti"]) == 2
    assert "data.layout=kitti; allowed: coco, voc, yolo" in capsys.readouterr().err


def test_the_doctor_takes_such_a_folder(tmp_path, capsys):
    folder, report = tmp_path / "set", str(tmp_path / "report")
    train = {i: [i % 2] for i in range(24)}
    write_set(folder, "train", ["cat", "dog"], train)
    write_set(folder, "test", ["cat", "dog"], {1: [0]})
    shutil.copy(folder / "train" / "train3.png", folder / "test" / "test1.png")
    assert cli.main(["doctor", str(folder), "--output", report, "--json"]) == 1
    facts = json.loads(capsys.readouterr().out)
    assert facts["train"]["images"] == 24 and facts["val"]["images"] == 1
    (shared,) = facts["together"]["problems"]
    assert shared["what"] == "images of train that are in val as well"
    assert facts["train"]["input_size"] == [416, 416]
    more = ["data.val_share=0.25", "data.input_size=[32,64]"]
    assert cli.main(["doctor", str(folder), "--output", report, "--json", *more]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["train"]["images"] == 18 and facts["val"]["images"] == 6
    assert facts["train"]["input_size"] == [32, 64]
    assert cli.main(["doctor", str(folder), "--images", "x", *more]) == 2
    assert "needs --config, or a folder with all splits" in capsys.readouterr().err
