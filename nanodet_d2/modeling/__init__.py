"""The model's parts; importing this fills detectron2's registries."""

from .backbone import CustomCSPNet, GhostNet, ShuffleNetV2, TimmBackbone, TorchvisionBackbone
from .head import (
    ATSSAssigner,
    DynamicSoftLabelAssigner,
    GFLHead,
    NanoDetHead,
    NanoDetPlusHead,
    SimpleConvHead,
)
from .meta_arch import GFL, NanoDetPlus, OneStageDetector
from .neck import FPN, PAN, TAN, GhostPAN

__all__ = [
    "FPN",
    "GFL",
    "PAN",
    "TAN",
    "ATSSAssigner",
    "CustomCSPNet",
    "DynamicSoftLabelAssigner",
    "GFLHead",
    "GhostNet",
    "GhostPAN",
    "NanoDetHead",
    "NanoDetPlus",
    "NanoDetPlusHead",
    "OneStageDetector",
    "ShuffleNetV2",
    "SimpleConvHead",
    "TimmBackbone",
    "TorchvisionBackbone",
]
