"""The model's parts; importing this fills detectron2's registries."""

from .backbone import GhostNet, ShuffleNetV2, TimmBackbone, TorchvisionBackbone
from .head import DynamicSoftLabelAssigner, NanoDetPlusHead, SimpleConvHead
from .meta_arch import NanoDetPlus
from .neck import GhostPAN

__all__ = [
    "DynamicSoftLabelAssigner",
    "GhostNet",
    "GhostPAN",
    "NanoDetPlus",
    "NanoDetPlusHead",
    "ShuffleNetV2",
    "SimpleConvHead",
    "TimmBackbone",
    "TorchvisionBackbone",
]
