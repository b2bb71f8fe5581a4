"""What detectron2's ResNet lacks."""

from __future__ import annotations

from typing import Any

from detectron2.modeling.backbone.resnet import BottleneckBlock, ResNet
from torch import nn

BOTTLENECK_DEPTHS = (50, 101, 152)


def make_dc5_stages(depth: int, **options: Any) -> list[list[nn.Module]]:
    """detectron2's default stages, with the last one dilated, which keeps it at stride 16 (DC5).

    Args:
        depth: 50, 101 or 152.
        **options: as of ``ResNet.make_default_stages``.

    Raises:
        ValueError: for another depth: its blocks cannot be dilated.
    """
    if depth not in BOTTLENECK_DEPTHS:
        raise ValueError(f"ResNet depth {depth} with DC5; allowed: {list(BOTTLENECK_DEPTHS)}")
    *stages, last = ResNet.make_default_stages(depth, **options)
    dilated = ResNet.make_stage(
        BottleneckBlock,
        len(last),
        in_channels=last[0].in_channels,
        out_channels=last[0].out_channels,
        bottleneck_channels=last[0].out_channels // 4,
        stride_per_block=[1] * len(last),
        dilation=2,
        **options,
    )
    return [*stages, dilated]
