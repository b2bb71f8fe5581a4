"""Training works: 20 images are learnt by heart."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from detectron2.config import LazyConfig

from nanodet_d2.config import apply_overrides
from nanodet_d2.data.synthetic import make_shapes_dataset
from nanodet_d2.engine import train

AUGMENTATION = "dataloader.train.mapper.augmentations"
SAME_PIXELS = [
    f"{AUGMENTATION}.0.scale=[1,1]",
    f"{AUGMENTATION}.0.stretch=[[1,1],[1,1]]",
    f"{AUGMENTATION}.0.flip=0",
    f"{AUGMENTATION}.0.translate=0",
    f"{AUGMENTATION}.1.brightness=0",
    f"{AUGMENTATION}.1.contrast=[1,1]",
    f"{AUGMENTATION}.1.saturation=[1,1]",
    "dataloader.train.num_workers=1",
    "dataloader.test.num_workers=1",
    "lr_multiplier.warmup_iters=20",
    "train.seed=0",
    "train.log_period=10",
    "train.device=cpu",
]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a config learns real images with, from its official weights.

    Their norms are folded into the convolutions: they pass everything on, and in a training would
    undo the scale that the convolutions have. AdamW, with its clipped gradients, gets over that;
    NanoDet-m's SGD does not, so its norms stay as they are.
    """

    weights: str
    overrides: tuple[str, ...]


OFFICIAL = {
    "nanodet_plus/configs/nanodet_plus_m_320.py": Recipe(
        "nanodet-plus-m_320.pth",
        (
            "model.aux_detach_iter=0",
            "model.aux_after_detach=drop",
            "train.ema.settings={decay:0.98,warmup:10}",
        ),
    ),
    "nanodet/configs/nanodet_m_320.py": Recipe(
        "nanodet_m_320.pth",
        ("model.freeze_norm=true", "optimizer.lr=0.01"),
    ),
}


@pytest.fixture
def twenty_images(shared, tmp_path) -> list[str]:
    """Overrides that train and evaluate on 20 images of COCO."""
    content = json.loads((shared / "coco_tiny/annotations/instances_train2017.json").read_text())
    content["images"] = sorted(content["images"], key=lambda x: x["id"])[:20]
    ids = {x["id"] for x in content["images"]}
    content["annotations"] = [x for x in content["annotations"] if x["image_id"] in ids]
    path = tmp_path / "twenty.json"
    path.write_text(json.dumps(content))
    return overrides_of({"json": str(path), "images": str(shared / "coco_tiny" / "train2017")})


def overrides_of(source: dict[str, str]) -> list[str]:
    return [f"data.{s}.{key}={x}" for s in ("train", "val") for key, x in source.items()]


def learn(config: Path, output: Path, overrides: list[str]) -> tuple[float, float]:
    """The AP on the images that were learnt, and the last loss as a share of the first."""
    cfg = apply_overrides(
        LazyConfig.load(str(config)), [*SAME_PIXELS, *overrides, f"train.output_dir={output}"]
    )
    results = train(cfg)
    lines = [json.loads(x) for x in (output / "metrics.json").read_text().splitlines()]
    losses = [x["total_loss"] for x in lines if "total_loss" in x]
    return results["bbox"]["AP"], losses[-1] / losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("config", OFFICIAL)
def test_twenty_images_are_learnt(shared, root, tmp_path, twenty_images, config):
    recipe = OFFICIAL[config]
    overrides = [
        *twenty_images,
        "dataloader.train.total_batch_size=10",
        "train.max_iter=200",
        "train.eval_period=200",
        f"train.init_checkpoint={shared / 'weights' / recipe.weights}",
        *recipe.overrides,
    ]
    ap, share = learn(root / "projects" / config, tmp_path / "out", overrides)
    assert share < 1 / 3
    assert ap > 60


# One config of each network; the others differ in width, size and schedule. Each learns twenty
# drawn pictures from random weights, in the steps that it takes.
NETWORKS = {
    "nanodet_m_0_5x_320": (),
    "nanodet_g_416": (),
    "nanodet_t_320": (),
    "nanodet_efficientnet_lite0_320": (),
    "nanodet_repvgg_a0_416": (),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_each_network_learns_twenty_pictures(root, tmp_path, name):
    drawn = make_shapes_dataset(tmp_path / "drawn", num_train=20, num_val=1, image_size=96)
    overrides = [
        *overrides_of(drawn["train"]),
        "data.input_size=[96,96]",
        "dataloader.train.total_batch_size=10",
        "train.max_iter=300",
        "train.eval_period=300",
        "optimizer.lr=0.02",
        *NETWORKS[name],
    ]
    config = root / "projects" / "nanodet" / "configs" / f"{name}.py"
    ap, share = learn(config, tmp_path / "out", overrides)
    assert share < 1 / 3
    assert ap > 50
