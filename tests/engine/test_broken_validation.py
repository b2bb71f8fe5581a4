"""A validation image that cannot be read ends a training before its first step."""

from __future__ import annotations

import shutil

import pytest
from detectron2.config import LazyConfig

from nanodet_d2.config import apply_overrides
from nanodet_d2.engine import Evaluation, train
from tests.engine.launching import CONFIG, OVERRIDES, ranks


@pytest.fixture
def overrides(shapes, tmp_path) -> list[str]:
    """Of a data set two of whose validation images are broken."""
    images = tmp_path / "val"
    shutil.copytree(shapes["val"]["images"], images)
    for path in sorted(images.iterdir())[2:4]:
        path.write_bytes(b"no image")
    data = [f"data.train.{k}={v}" for k, v in shapes["train"].items()]
    data += [f"data.val.json={shapes['val']['json']}", f"data.val.images={images}"]
    return [*OVERRIDES, *data, f"train.output_dir={tmp_path / 'out'}"]


def test_all_broken_images_are_named_before_the_first_step(overrides, tmp_path):
    cfg = apply_overrides(LazyConfig.load(str(CONFIG)), overrides)
    broken = sorted((tmp_path / "val").iterdir())[2:4]
    for run in (train, Evaluation):  # the second is all that --eval-only builds
        with pytest.raises(ValueError, match="2 of the 8 images of the evaluation") as error:
            run(cfg)
        assert all(f"{path}: not an image of the" in str(error.value) for path in broken)
    assert not (tmp_path / "out" / "metrics.json").exists()
    assert not list((tmp_path / "out").glob("*.pth"))


@pytest.mark.slow
def test_both_ranks_end(overrides):
    """None is left waiting for the one that opened them."""
    done = ranks(2, *overrides)
    assert done.returncode != 0
    assert "2 of the 8 images of the evaluation cannot be used" in done.output
