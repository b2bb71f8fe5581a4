"""Only a config that stretches or fits its test images is exported."""

from __future__ import annotations

import pytest
from detectron2.config import LazyCall as L
from detectron2.data import DatasetMapper
from detectron2.data.transforms import RandomFlip, ResizeShortestEdge
from omegaconf import OmegaConf

from nanodet_d2.checkpoint.config_text import config_from_json, config_to_json
from nanodet_d2.config import get_config, shipped_configs
from nanodet_d2.data import DetectionMapper, RandomWarp
from nanodet_d2.export.loading import load_model
from nanodet_d2.export.preparation import check_preparation


@pytest.fixture
def cfg():
    found = get_config("common/data/coco.py")
    found.model = {"input_format": "BGR"}
    return found


def set_augmentations(cfg, *augmentations):
    cfg.dataloader.test.mapper.augmentations = list(augmentations)


def warp(**options):
    return L(RandomWarp)(size="${data.input_size}", **options)


def test_every_shipped_config_is_accepted():
    count = 0
    for name in shipped_configs():
        if not name.startswith("common/"):
            found = get_config(name)
            wanted = "fit" if name.startswith("nanodet/") else "stretch"
            assert check_preparation(found, None) == wanted
            count += "dataloader" in found
    assert count >= 8


def test_what_only_stretches_is_accepted(cfg):
    set_augmentations(cfg, warp(scale=[1, 1], stretch=[[1, 1], [1.0, 1.0]], flip=0, translate=0))
    check_preparation(cfg, None)
    check_preparation(config_from_json(config_to_json(cfg)), None)  # as of a checkpoint
    set_augmentations(cfg, L(RandomWarp)(size=[64, 96]))
    check_preparation(cfg, (64, 128))  # another size is the user's wish
    for missing in ("dataloader.test.mapper", "dataloader"):
        OmegaConf.update(cfg, missing, None)
        check_preparation(cfg, None)  # nothing is said


@pytest.mark.parametrize(
    "augmentations, words",
    [
        ([warp(scale=(0.5, 0.5))], r"RandomWarp with scale=\[0.5, 0.5\]"),
        ([warp(flip=0.5)], "RandomWarp with flip=0.5"),
        ([L(RandomWarp)(size=[64, 96])], r"images to \[64, 96\], and data.input_size is \[320, 3"),
        ([L(ResizeShortestEdge)(short_edge_length=320, max_size=640)], "ResizeShortestEdge;"),
        ([warp(), L(RandomFlip)()], "RandomWarp, .*RandomFlip"),
        ([], "augmentations none, so that images stay as they are"),
    ],
)
def test_another_resize_is_refused(cfg, augmentations, words):
    set_augmentations(cfg, *augmentations)
    with pytest.raises(ValueError, match=f"{words}.*allowed for an export: a DetectionMapper"):
        check_preparation(cfg, None)


def test_another_way_of_reading_is_refused(cfg):
    for change, words in (
        (dict(image_format="RGB"), "reads RGB images for a model that takes BGR"),
        (dict(reduced_jpeg=True), "reduced_jpeg=True"),
    ):
        cfg.dataloader.test.mapper = L(DetectionMapper)(
            is_train=False, augmentations=[warp()], **change
        )
        with pytest.raises(ValueError, match=words):
            check_preparation(cfg, None)
    cfg.dataloader.test.mapper = L(DatasetMapper)(is_train=False, augmentations=[warp()])
    with pytest.raises(ValueError, match="prepares images by .*DatasetMapper"):
        check_preparation(cfg, None)


def test_nothing_is_loaded_of_a_config_that_is_refused(small_models):
    recipe = small_models.recipe()
    option = "dataloader.test.mapper.augmentations.0.stretch=[[1.0,1.0],[0.9,0.9]]"
    with pytest.raises(ValueError, match=r"RandomWarp with stretch=\[\[1.0, 1.0\], \[0.9, 0.9\]\]"):
        load_model(recipe.config, "nowhere.pth", overrides=[*recipe.overrides, option])
