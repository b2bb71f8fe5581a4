"""Backbones: each names its features ``res{log2 stride}`` and tells their channels and strides."""

from .ghostnet import GhostNet
from .shufflenetv2 import ShuffleNetV2

__all__ = ["GhostNet", "ShuffleNetV2"]
