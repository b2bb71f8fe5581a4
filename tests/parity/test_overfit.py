"""Training works: the official weights learn 20 real images by heart."""

from __future__ import annotations

import json

import pytest
from detectron2.config import LazyConfig

from nanodet_d2.config import apply_overrides
from nanodet_d2.engine import train

AUGMENTATION = "dataloader.train.mapper.augmentations"


@pytest.fixture
def twenty_images(shared, tmp_path) -> str:
    content = json.loads((shared / "coco_tiny/annotations/instances_train2017.json").read_text())
    content["images"] = sorted(content["images"], key=lambda x: x["id"])[:20]
    ids = {x["id"] for x in content["images"]}
    content["annotations"] = [x for x in content["annotations"] if x["image_id"] in ids]
    path = tmp_path / "twenty.json"
    path.write_text(json.dumps(content))
    return str(path)


@pytest.mark.slow
def test_twenty_images_are_learnt(shared, root, tmp_path, twenty_images):
    images = shared / "coco_tiny" / "train2017"
    cfg = apply_overrides(
        LazyConfig.load(str(root / "projects/nanodet_plus/configs/nanodet_plus_m_320.py")),
        [
            *(f"data.{split}.json={twenty_images}" for split in ("train", "val")),
            *(f"data.{split}.images={images}" for split in ("train", "val")),
            # Always the same pixels.
            f"{AUGMENTATION}.0.scale=[1,1]",
            f"{AUGMENTATION}.0.stretch=[[1,1],[1,1]]",
            f"{AUGMENTATION}.0.flip=0",
            f"{AUGMENTATION}.0.translate=0",
            f"{AUGMENTATION}.1.brightness=0",
            f"{AUGMENTATION}.1.contrast=[1,1]",
            f"{AUGMENTATION}.1.saturation=[1,1]",
            "dataloader.train.total_batch_size=10",
            "dataloader.train.num_workers=1",
            "dataloader.test.num_workers=1",
            "model.aux_detach_iter=0",
            "model.aux_after_detach=drop",
            "lr_multiplier.warmup_iters=20",
            "train.ema.settings={decay:0.98,warmup:10}",
            "train.seed=0",
            "train.max_iter=200",
            "train.eval_period=200",
            "train.log_period=10",
            "train.device=cpu",
            f"train.init_checkpoint={shared / 'weights' / 'nanodet-plus-m_320.pth'}",
            f"train.output_dir={tmp_path / 'out'}",
        ],
    )
    results = train(cfg)
    lines = [json.loads(x) for x in (tmp_path / "out" / "metrics.json").read_text().splitlines()]
    losses = [x["total_loss"] for x in lines if "total_loss" in x]
    assert losses[-1] < losses[0] / 3
    assert results["bbox"]["AP"] > 60
