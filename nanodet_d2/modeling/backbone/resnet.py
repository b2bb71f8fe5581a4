"""detectron2's ResNet, with the stages of every depth from one set of options."""

from __future__ import annotations

from typing import Any

from detectron2.modeling.backbone import BasicStem
from detectron2.modeling.backbone import ResNet as Detectron2ResNet
from detectron2.modeling.backbone.resnet import BasicBlock, BottleneckBlock
from torch import nn

__all__ = ["BasicStem", "ResNet", "make_stage"]

BLOCKS_PER_STAGE = {  # He et al. 2016, table 1
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
BOTTLENECK_DEPTH = 50  # from this depth on
STEM_CHANNELS = 64
_BOTTLENECK_OPTIONS = ("stride_in_1x1", "num_groups")


def make_stage(
    *, depth: int, norm: str = "BN", res5_dilation: int = 1, **options: Any
) -> list[list[nn.Module]]:
    """The four stages of a ResNet.

    Args:
        depth: 18, 34, 50, 101 or 152.
        norm: a name of ``detectron2.layers.get_norm``.
        res5_dilation: 2 keeps the last stage at stride 16 (DC5); bottleneck depths only.
        **options: of detectron2's ``BottleneckBlock``; those that the basic blocks of depths 18
            and 34 do not have are left out there.

    Raises:
        ValueError: for another depth or dilation.
    """
    if depth not in BLOCKS_PER_STAGE:
        raise ValueError(f"ResNet depth {depth}; allowed: {list(BLOCKS_PER_STAGE)}")
    bottleneck = depth >= BOTTLENECK_DEPTH
    if res5_dilation not in ((1, 2) if bottleneck else (1,)):
        raise ValueError(
            f"ResNet-{depth} res5_dilation {res5_dilation}; allowed: 1, and 2 from depth "
            f"{BOTTLENECK_DEPTH} on"
        )
    if not bottleneck:
        options = {k: v for k, v in options.items() if k not in _BOTTLENECK_OPTIONS}

    stages = []
    channels = STEM_CHANNELS
    for i, num_blocks in enumerate(BLOCKS_PER_STAGE[depth]):
        width = STEM_CHANNELS * 2**i
        dilation = res5_dilation if i == 3 else 1
        first_stride = 1 if i == 0 or dilation > 1 else 2
        extra = dict(bottleneck_channels=width, dilation=dilation) if bottleneck else {}
        out_channels = 4 * width if bottleneck else width
        stages.append(
            Detectron2ResNet.make_stage(
                BottleneckBlock if bottleneck else BasicBlock,
                num_blocks,
                stride_per_block=[first_stride] + [1] * (num_blocks - 1),
                in_channels=channels,
                out_channels=out_channels,
                norm=norm,
                **extra,
                **options,
            )
        )
        channels = out_channels
    return stages


class ResNet(Detectron2ResNet):
    """detectron2's ResNet; its default stages take the same options for every depth."""

    @staticmethod
    def make_default_stages(depth: int, **options: Any) -> list[list[nn.Module]]:
        """As :func:`make_stage`."""
        return make_stage(depth=depth, **options)

    @property
    def size_divisibility(self) -> int:
        return max(spec.stride for spec in self.output_shape().values())
