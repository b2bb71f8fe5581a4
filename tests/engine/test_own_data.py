"""Trainings on a folder: what is found is said, and what is kept for validation stays the same."""

from __future__ import annotations

import argparse
import json
import re
import shutil
from pathlib import Path

import pytest

from nanodet_d2.checkpoint import read_card
from nanodet_d2.config import apply_overrides, get_config
from nanodet_d2.data.describe import describe_data
from nanodet_d2.engine import main
from nanodet_d2.engine.length import prefer_given_length
from tests.engine.small_training import FAST


@pytest.fixture
def folder(shapes, tmp_path) -> Path:
    """A COCO folder with train alone."""
    target = tmp_path / "my data"
    shutil.copytree(shapes["train"]["images"], target / "train")
    (target / "annotations").mkdir()
    shutil.copy(shapes["train"]["json"], target / "annotations" / "instances_train.json")
    return target


def run(root: Path, *overrides: str, config: str = "", resume: bool = False, eval_only=False):
    path = root / "projects" / "nanodet_plus" / "configs" / "demo_shapes.py"
    return main(
        argparse.Namespace(
            config_file=config or str(path),
            opts=[*overrides] if config else [*FAST, *overrides],
            resume=resume,
            eval_only=eval_only,
        )
    )


def test_a_part_of_train_is_kept_and_stays_the_same(root, folder, tmp_path):
    out = tmp_path / "out"
    options = [f'data.source="{folder}"', f"train.output_dir={out}"]
    results = run(root, *options)
    assert "AP" in results["bbox"]
    log = (out / "log.txt").read_text()
    assert f"{folder}: COCO; train (by {out / 'split.json'}): 19 images, " in log
    assert f"val (by {out / 'split.json'}): 5 images, " in log
    division = json.loads((out / "split.json").read_text())
    assert (len(division["train"]), len(division["val"])) == (19, 5)
    names = {x.name for x in (folder / "train").iterdir()}
    assert {*division["train"], *division["val"]} == names

    # Its checkpoint knows which images those are: an evaluation elsewhere has them as well.
    card = read_card(str(out / "model_final.pth"))
    assert card is not None and str(out / "split.json") in card.config
    elsewhere = f"train.output_dir={tmp_path / 'elsewhere'}"
    again = run(root, elsewhere, config=str(out / "model_final.pth"), eval_only=True)
    assert again["bbox"]["AP"] == pytest.approx(results["bbox"]["AP"])

    # A resume has the same, whatever it is asked for now.
    run(root, *options, "data.split_seed=7", "train.max_iter=6", resume=True)
    assert json.loads((out / "split.json").read_text()) == division
    # Another training may be given them, or have others.
    other = [options[0], f"train.output_dir={tmp_path / 'other'}"]
    run(root, *other, f"data.split_file={out / 'split.json'}")
    assert not (tmp_path / "other" / "split.json").exists()
    run(root, *other, "data.split_seed=7")
    assert json.loads((tmp_path / "other" / "split.json").read_text()) != division


def test_the_line_says_what_stands_for_what(folder, tmp_path):
    data = get_config("common/data/coco.py").data
    data.source = str(folder)
    for name in ("val", "test"):
        (folder / name).mkdir()
    (folder / "annotations" / "instances_train.json").rename(folder / "all.json")
    content = json.loads((folder / "all.json").read_text())
    (folder / "all.json").unlink()
    for name in ("train", "val", "test"):
        path = folder / "annotations" / f"instances_{name}.json"
        path.write_text(json.dumps({**content, "images": content["images"][:3]}))
        for image in content["images"][:3]:
            if name != "train":
                shutil.copy(folder / "train" / image["file_name"], folder / name)
    text = describe_data(data)
    assert text.startswith(f"{folder}: COCO; train: 3 images, ") and "; val: 3 images" in text
    assert text.endswith("classes: " + ", ".join(_names(content)) + "; test is not used")
    data.val.split = "test"
    text = describe_data(data)
    assert "val (the test split: never trained on, but model_best is chosen on it): 3" in text
    assert "not used" not in text


def test_registered_sets_are_named_as_the_loaders_have_them():
    cfg = get_config("nanodet_plus/demo_shapes.py")
    assert describe_data(cfg.data).startswith(
        "train: coco_2017_train, registered; val: coco_2017_val, registered; classes: person, "
    )
    given = ["dataloader.train.dataset.names=coco_2017_val_100"]
    text = describe_data(apply_overrides(cfg, given).data)
    assert text.startswith("train: coco_2017_val_100, registered; val: coco_2017_val, ")


def _names(content: dict) -> list[str]:
    return [x["name"] for x in sorted(content["categories"], key=lambda x: x["id"])]


@pytest.mark.parametrize(
    "overrides, minutes, epochs",
    [
        ([], 10, None),
        (["train.max_iter=7"], None, None),
        (["train.epochs=3"], None, 3),
        (["train.minutes=2"], 2, None),
        (["train.minutes=2", "train.epochs=null"], 2, None),
    ],
)
def test_the_length_that_is_asked_for_counts(overrides, minutes, epochs):
    cfg = get_config("nanodet_plus/finetune_416.py")
    assert cfg.train.minutes == 10
    cfg = apply_overrides(cfg, overrides)
    prefer_given_length(cfg, overrides)
    assert (cfg.train.minutes, cfg.train.epochs) == (minutes, epochs)


def test_two_lengths_are_refused():
    overrides = ["train.max_iter=7", "train.minutes=2"]
    cfg = apply_overrides(get_config("nanodet_plus/finetune_416.py"), overrides)
    message = "train.minutes=2 and train.max_iter=7; allowed: one of them"
    with pytest.raises(ValueError, match=re.escape(message)):
        prefer_given_length(cfg, overrides)
