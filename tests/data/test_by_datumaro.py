"""``nanodet-d2 data convert`` of other tools' data sets, which datumaro reads."""

from __future__ import annotations

import json

import pytest

from nanodet_d2 import cli
from nanodet_d2.data.conversion import convert
from tests.data.test_conversion import boxes, write_cvat, write_images

pytest.importorskip("datumaro")


def test_cvat(tmp_path):
    write_cvat(tmp_path / "cvat")
    done = convert({"source": str(tmp_path / "cvat")}, tmp_path / "new")
    assert done.what == "cvat, read by datumaro"
    assert boxes(tmp_path / "new") == {
        "train": {
            "a.jpg": [("hot dog", 10.5, 10, 20, 30), ("cat", 1, 1, 19, 14)],
            "b b.jpg": [],
        }
    }
    assert [(x, n) for x, n, _ in done.problems] == [("polygons, turned into their boxes", 1)]


def test_kitti(tmp_path):
    write_images(tmp_path / "kitti" / "training" / "image_2", "000000.png", "000001.png")
    labels = tmp_path / "kitti" / "training" / "label_2"
    labels.mkdir()
    rest = "1.5 1.6 3.7 1.0 1.7 10.0 -1.5"
    (labels / "000000.txt").write_text(
        f"Car 0.00 0 -1.57 10.00 12.00 40.00 50.00 {rest}\n"
        "DontCare -1 -1 -10 1 1 9 9 -1 -1 -1 -1000 -1000 -1000 -10\n"
    )
    (labels / "000001.txt").write_text(f"Pedestrian 0.00 0 -0.2 20.00 10.00 30.00 44.00 {rest}\n")
    convert({"source": str(tmp_path / "kitti")}, tmp_path / "new")
    assert boxes(tmp_path / "new") == {
        "train": {
            "000000.png": [("Car", 10, 12, 30, 38)],
            "000001.png": [("Pedestrian", 20, 10, 10, 34)],
        }
    }


def test_open_images_with_names_in_place_of_codes(tmp_path):
    folder = tmp_path / "open"
    write_images(folder / "images", "train/01.jpg", "validation/02.jpg")
    (folder / "annotations").mkdir()
    (folder / "annotations" / "class-descriptions.csv").write_text("/m/1,Cat\n/m/2,Hot dog\n")
    head = (
        "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,"
        "IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n"
    )
    for split, lines in (
        ("train", "01,x,/m/1,1,0.25,0.5,0.1,0.5,0,0,0,0,0\n01,x,/m/2,1,0.5,1,0.5,1,0,0,1,0,0"),
        ("validation", "02,x,/m/2,1,0.25,0.5,0.1,0.5,0,0,0,0,0"),
    ):
        path = folder / "annotations" / f"{split}-annotations-bbox.csv"
        path.write_text(f"{head}{lines}\n")
    convert({"source": str(folder)}, tmp_path / "new")
    assert boxes(tmp_path / "new") == {
        "train": {"01.jpg": [("Cat", 20, 6, 20, 24), ("Hot dog", 40, 30, 40, 30)]},
        "val": {"02.jpg": [("Hot dog", 20, 6, 20, 24)]},
    }
    written = json.loads((tmp_path / "new/annotations/instances_train.json").read_text())
    assert [x["iscrowd"] for x in written["annotations"]] == [0, 1]  # a group of hot dogs


def test_what_is_not_known_or_could_be_several_is_asked_back(tmp_path, monkeypatch, capsys):
    write_images(tmp_path / "pictures", "a.jpg")
    arguments = ["data", "convert", str(tmp_path / "pictures"), "--output", str(tmp_path / "n")]
    assert cli.main(arguments) == 2
    told = capsys.readouterr().err
    assert "a folder of .jpg files" in told and "--from, as one of cvat" in told
    assert cli.main([*arguments, "--from", "cvta"]) == 2
    assert "--from cvta; close: cvat" in capsys.readouterr().err
    assert cli.main([*arguments, "--from", "cvat"]) == 2
    assert "cannot be read as cvat" in capsys.readouterr().err
    assert cli.main([*arguments, "--from", "image_dir"]) == 2
    assert "read as image_dir, read by datumaro, has no boxes" in capsys.readouterr().err
    from datumaro.components.environment import Environment

    monkeypatch.setattr(Environment, "detect_dataset", lambda *_, **__: ["mots", "mot_seq"])
    assert cli.main(arguments) == 2
    assert "could be mots, mot_seq: choose one with --from" in capsys.readouterr().err
    assert not (tmp_path / "n").exists()
