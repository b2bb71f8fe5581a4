"""Backbones: each names its features ``res{log2 stride}`` and tells their channels and strides."""

from .shufflenetv2 import ShuffleNetV2

__all__ = ["ShuffleNetV2"]
