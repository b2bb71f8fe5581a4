"""detectron2's registries find what is registered, and refuse to build it from a yacs config."""

from __future__ import annotations

import inspect

import pytest
from detectron2.config import get_cfg
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY, build_backbone, build_model

from nanodet_d2.modeling import (
    GhostNet,
    NanoDetPlus,
    ShuffleNetV2,
    TimmBackbone,
    TorchvisionBackbone,
)


@pytest.mark.parametrize("cls", [GhostNet, ShuffleNetV2, TimmBackbone, TorchvisionBackbone])
def test_backbones(cls):
    assert BACKBONE_REGISTRY.get(cls.__name__) is cls
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = cls.__name__
    with pytest.raises(
        ValueError,
        match=rf"^{cls.__name__} cannot be built from a yacs config; .*LazyCall\({cls.__name__}\)",
    ):
        build_backbone(cfg)


def test_the_detector():
    assert META_ARCH_REGISTRY.get("NanoDetPlus") is NanoDetPlus
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "NanoDetPlus"
    with pytest.raises(ValueError, match=r"^NanoDetPlus cannot be built from a yacs config; "):
        build_model(cfg)


def test_they_are_built_by_their_own_arguments():
    assert BACKBONE_REGISTRY.get("ShuffleNetV2")("0.5x", out_features=["res3"]).output_shape()
    assert "out_features" in inspect.signature(ShuffleNetV2).parameters  # for checks of configs
    with pytest.raises(TypeError, match="out_feature"):
        ShuffleNetV2(out_feature=["res3"])
