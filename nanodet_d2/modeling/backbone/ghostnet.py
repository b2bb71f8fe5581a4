"""GhostNet (Han et al. 2020)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import timm
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from timm.layers import make_divisible
from torch import Tensor, nn

from nanodet_d2.layers import GhostBottleneck, Style, conv_norm_act
from nanodet_d2.modeling.registering import register

from .levels import IMAGENET
from .weights import load_classifier_weights

TIMM_NAME = "ghostnet_100"  # the same network under the same names
STEM_CHANNELS = 16
TAIL_CHANNELS = 960  # of the 1 x 1 convolution that ends the network
CHANNEL_DIVISOR = 4


class _Block(NamedTuple):
    """A bottleneck before the width multiplier; paper, table 1."""

    kernel_size: int
    expansion: int  # hidden channels
    out_channels: int
    se_ratio: float = 0.0
    stride: int = 1


STAGES: tuple[tuple[_Block, ...], ...] = (
    (_Block(3, 16, 16),),
    (_Block(3, 48, 24, stride=2),),
    (_Block(3, 72, 24),),
    (_Block(5, 72, 40, 0.25, stride=2),),
    (_Block(5, 120, 40, 0.25),),
    (_Block(3, 240, 80, stride=2),),
    (
        _Block(3, 200, 80),
        _Block(3, 184, 80),
        _Block(3, 184, 80),
        _Block(3, 480, 112, 0.25),
        _Block(3, 672, 112, 0.25),
    ),
    (_Block(5, 672, 160, 0.25, stride=2),),
    (
        _Block(5, 960, 160),
        _Block(5, 960, 160, 0.25),
        _Block(5, 960, 160),
        _Block(5, 960, 160, 0.25),
    ),
)
TAIL_STAGE = len(STAGES)


@register(BACKBONE_REGISTRY)
class GhostNet(Backbone):
    """GhostNet features; nothing after the last stage asked for is built.

    Args:
        width_mult: multiplier of all channels.
        out_stages: stages whose outputs are returned, 0 to 9, each of another stride. Stage 9 is
            the 1 x 1 convolution before the classifier; ``(4, 6, 8)`` does without it.
        norm: a name of ``detectron2.layers.get_norm``.
        activation: a name of ``nanodet_d2.layers.get_activation``.
        pretrained: load timm's ImageNet weights (width 1.0 only), which want RGB images.
        checkpoint_path: load this file, in timm's names, instead.

    Raises:
        ValueError: for stages that are not there or share a stride, or weights that cannot be had.
    """

    def __init__(
        self,
        width_mult: float = 1.0,
        *,
        out_stages: Sequence[int] = (4, 6, 9),
        norm: str = "BN",
        activation: str | None = "ReLU",
        pretrained: bool = False,
        checkpoint_path: str = "",
    ):
        super().__init__()
        if pretrained and width_mult != 1.0 and not checkpoint_path:
            raise ValueError(f"GhostNet width_mult {width_mult} has no weights; allowed: 1.0")
        strides = _stage_strides()
        self._stage_names = _feature_names(out_stages, strides)

        def width(channels: int) -> int:
            return make_divisible(channels * width_mult, CHANNEL_DIVISOR)

        style = Style(norm=norm, activation=activation)
        channels = width(STEM_CHANNELS)
        self.stem = conv_norm_act(3, channels, 3, stride=2, **style)
        self.stages = nn.ModuleList()
        stage_channels = []
        for stage in range(max(out_stages) + 1):
            blocks: list[nn.Module] = []
            if stage == TAIL_STAGE:
                blocks.append(conv_norm_act(channels, width(TAIL_CHANNELS), **style))
                channels = width(TAIL_CHANNELS)
            else:
                for block in STAGES[stage]:
                    blocks.append(_bottleneck(block, channels, width, style))
                    channels = width(block.out_channels)
            self.stages.append(nn.Sequential(*blocks))
            stage_channels.append(channels)

        self._out_features = list(self._stage_names.values())
        self._out_feature_channels = {
            name: stage_channels[stage] for stage, name in self._stage_names.items()
        }
        self._out_feature_strides = {
            name: strides[stage] for stage, name in self._stage_names.items()
        }
        self._init_weights()
        if pretrained or checkpoint_path:
            load_classifier_weights(self, f"timm's {TIMM_NAME}", checkpoint_path, _download)
            self.input_spec = IMAGENET

    def _init_weights(self) -> None:
        """The reference's start: N(0, 1 / fan-in channels), 0.01 in the stem, norm bias 1e-4."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                std = 0.01 if module is self.stem else 1.0 / module.weight.shape[1]
                nn.init.normal_(module.weight, std=std)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, (nn.BatchNorm2d, nn.GroupNorm)):
                nn.init.constant_(module.bias, 1e-4)

    @property
    def size_divisibility(self) -> int:
        return max(self._out_feature_strides.values())

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map images (N, 3, H, W) to ``{name: (N, channels, H / stride, W / stride)}``."""
        x = self.stem(x)
        outputs = {}
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i in self._stage_names:
                outputs[self._stage_names[i]] = x
        return outputs


def _download() -> dict[str, Tensor]:
    return timm.create_model(TIMM_NAME, pretrained=True).state_dict()


def _bottleneck(
    block: _Block, in_channels: int, width: Callable[[int], int], style: Style
) -> GhostBottleneck:
    hidden = width(block.expansion)
    return GhostBottleneck(
        in_channels,
        hidden,
        width(block.out_channels),
        kernel_size=block.kernel_size,
        stride=block.stride,
        se_channels=make_divisible(hidden * block.se_ratio, CHANNEL_DIVISOR)
        if block.se_ratio
        else 0,
        **style,
    )


def _stage_strides() -> list[int]:
    strides = [2]  # the stem's
    for blocks in STAGES:
        strides.append(strides[-1] * math.prod(block.stride for block in blocks))
    return [*strides[1:], strides[-1]]  # the tail keeps the last stage's


def _feature_names(out_stages: Sequence[int], strides: Sequence[int]) -> dict[int, str]:
    """Stage -> ``res{log2 stride}``, by ascending stage."""
    unknown = [stage for stage in out_stages if stage not in range(len(strides))]
    if unknown or not out_stages:
        raise ValueError(
            f"GhostNet out_stages {list(out_stages)}; allowed: one or more of 0 to {TAIL_STAGE}"
        )
    names = {stage: f"res{int(math.log2(strides[stage]))}" for stage in sorted(out_stages)}
    if len(set(names.values())) < len(names):
        taken = {stage: strides[stage] for stage in names}
        raise ValueError(
            f"GhostNet out_stages {list(out_stages)} share a stride (stage: stride {taken}); "
            "allowed: one stage per stride"
        )
    return names
