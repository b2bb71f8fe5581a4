"""Building blocks shared by backbones, necks and heads."""

from .conv import (
    LEAKY_SLOPE,
    DepthwiseSeparableConv,
    Style,
    conv_norm_act,
    conv_stack,
    get_activation,
)
from .fusion import fuse_conv_norm
from .ghost import GhostBottleneck, GhostModule
from .norms import KeptBuffers, batch_norms, norms_are_folded

__all__ = [
    "LEAKY_SLOPE",
    "DepthwiseSeparableConv",
    "GhostBottleneck",
    "GhostModule",
    "KeptBuffers",
    "Style",
    "batch_norms",
    "conv_norm_act",
    "conv_stack",
    "fuse_conv_norm",
    "get_activation",
    "norms_are_folded",
]
