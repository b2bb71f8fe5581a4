"""``nanodet-d2 doctor --plan``: sizes of input and tiles for a data set's folder."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from nanodet_d2 import cli
from nanodet_d2.config import apply_overrides, get_config


@pytest.fixture
def folder(shapes) -> str:
    return str(Path(shapes["train"]["images"]).parent)


def test_a_folder_is_planned_for(folder, capsys):
    assert cli.main(["doctor", "--plan", folder, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["images"] == 24 and facts["boxes"] > 24
    # Pictures of 96 px are not cut.
    assert [x["tiles"] for x in facts["choices"]] == [None] * 3
    assert facts["proposed"]["input_size"] == [320, 320] and facts["proposed"]["tiles"] is None
    assert facts["command"] == f"nanodet-d2 train {folder} 'data.input_size=[320,320]'"


def test_the_text_names_the_proposal_and_what_to_do(tmp_path, capsys):
    images = [{"id": 1, "file_name": "a.png", "height": 1200, "width": 1200}]
    boxes = [
        {"id": i, "image_id": 1, "category_id": 1, "bbox": [20 * i, 5, 12, 12]} for i in range(9)
    ]
    content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "x"}]}
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "a.png").write_bytes(b"not opened")
        (tmp_path / "annotations").mkdir(exist_ok=True)
        (tmp_path / f"annotations/instances_{split}.json").write_text(json.dumps(content))
    assert cli.main(["doctor", "--plan", str(tmp_path), "--input-size", "416,416"]) == 0
    text = capsys.readouterr().out
    (line,) = [x for x in text.splitlines() if x.startswith("* ")]
    assert "0.0 % of the boxes under 8 px" in line
    (command,) = [x for x in text.splitlines() if x.startswith("train: ")]
    override = shlex.split(command)[-1]
    cfg = apply_overrides(get_config("common/data/coco.py"), [override])
    assert f"tiles of {cfg.dataloader.train.tiles.size} px" in line
    assert f"--tiles {cfg.dataloader.train.tiles.size} --overlap 0.1" in text


def test_what_is_refused(folder, capsys):
    assert cli.main(["doctor", "--plan", folder, "--images", folder]) == 2
    assert "--plan takes a folder with all splits" in capsys.readouterr().err
