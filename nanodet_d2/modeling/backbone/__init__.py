"""Backbones: each names its features ``res{log2 stride}`` and tells their channels and strides."""

from .ghostnet import GhostNet
from .resnet import make_dc5_stages
from .shufflenetv2 import ShuffleNetV2
from .timm_backbone import TimmBackbone
from .torchvision_backbone import TorchvisionBackbone
from .weights import without_pretrained_weights

__all__ = [
    "GhostNet",
    "ShuffleNetV2",
    "TimmBackbone",
    "TorchvisionBackbone",
    "make_dc5_stages",
    "without_pretrained_weights",
]
