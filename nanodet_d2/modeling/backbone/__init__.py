"""Backbones: each names its features ``res{log2 stride}`` and tells their channels and strides."""

from .custom_csp_net import CustomCSPNet
from .ghostnet import GhostNet
from .repvgg import make_repvgg_blocks
from .resnet import make_dc5_stages
from .shufflenetv2 import ShuffleNetV2
from .timm_backbone import TimmBackbone
from .torchvision_backbone import TorchvisionBackbone
from .weights import without_pretrained_weights

__all__ = [
    "CustomCSPNet",
    "GhostNet",
    "ShuffleNetV2",
    "TimmBackbone",
    "TorchvisionBackbone",
    "make_dc5_stages",
    "make_repvgg_blocks",
    "without_pretrained_weights",
]
