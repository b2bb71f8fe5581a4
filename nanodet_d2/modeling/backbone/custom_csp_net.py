"""The CSP network of NanoDet-g, made of plain convolutions (cf. Wang et al. 2020, "CSPNet").

timm's cross-stage networks split and join their stages otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor, nn

from nanodet_d2.layers import Style, conv_norm_act
from nanodet_d2.modeling.registering import register

from .levels import level_name

NANODET_G = (
    ("Conv", 3, 32, 3, 2),
    ("MaxPool", 3, 2),
    ("CspBlock", 32, 1, 3, 1),
    ("CspBlock", 64, 2, 3, 2),
    ("CspBlock", 128, 2, 3, 2),
    ("CspBlock", 256, 3, 3, 2),
)
# What follows a stage's kind.
_FORMS = {
    "Conv": ("input channels", "output channels", "kernel size", "stride"),
    "MaxPool": ("kernel size", "stride"),
    "CspBlock": ("input channels", "number of blocks", "kernel size", "stride"),
}


class TinyResBlock(nn.Module):
    """Two convolutions at half of the channels, whose outputs are joined, the second first."""

    def __init__(self, channels: int, kernel_size: int, style: Style):
        super().__init__()
        half = channels // 2
        self.in_conv = conv_norm_act(channels, half, kernel_size, **style)
        self.mid_conv = conv_norm_act(half, half, kernel_size, **style)

    def forward(self, x: Tensor) -> Tensor:
        x = self.in_conv(x)
        return torch.cat([self.mid_conv(x), x], dim=1)


class CspBlock(nn.Module):
    """A convolution and what residual blocks make of it, joined: twice the channels."""

    def __init__(self, channels: int, num_blocks: int, kernel_size: int, stride: int, style: Style):
        super().__init__()
        self.in_conv = conv_norm_act(channels, channels, kernel_size, stride=stride, **style)
        self.res_blocks = nn.Sequential(
            *(TinyResBlock(channels, kernel_size, style) for _ in range(num_blocks))
        )
        self.res_out_conv = conv_norm_act(channels, channels, kernel_size, **style)

    def forward(self, x: Tensor) -> Tensor:
        x = self.in_conv(x)
        return torch.cat([self.res_out_conv(self.res_blocks(x)), x], dim=1)


@register(BACKBONE_REGISTRY)
class CustomCSPNet(Backbone):
    """Stages after a list, those asked for as features ``res{log2 stride}``.

    Args:
        net_cfg: a stage each, as the reference writes it: ``[Conv, in, out, kernel, stride]``,
            ``[MaxPool, kernel, stride]`` or ``[CspBlock, in, number of blocks, kernel, stride]``,
            which has twice as many channels as it is given.
        out_stages: indices of the stages that are returned, each of another stride.
        norm: a name of ``detectron2.layers.get_norm``.
        activation: a name of ``nanodet_d2.layers.get_activation``.

    Raises:
        ValueError: for a stage of another form or other channels than those before it gives, and
            for stages to return that are not there or share a stride.
    """

    def __init__(
        self,
        net_cfg: Sequence[Sequence[Any]] = NANODET_G,
        *,
        out_stages: Sequence[int] = (3, 4, 5),
        norm: str = "BN",
        activation: str | None = "LeakyReLU",
    ):
        super().__init__()
        style = Style(norm=norm, activation=activation)
        self.stages = nn.ModuleList()
        channels, stride = 3, 1
        shapes = []
        for index, form in enumerate(net_cfg):
            stage, channels = _make_stage(index, list(form), channels, style)
            stride *= form[-1]
            self.stages.append(stage)
            shapes.append((channels, stride))
        unknown = [i for i in out_stages if i not in range(len(shapes))]
        self._names = {i: level_name(shapes[i][1]) for i in sorted(out_stages) if i not in unknown}
        if unknown or len(set(self._names.values())) < max(1, len(out_stages)):
            strides = {i: stride for i, (_, stride) in enumerate(shapes)}
            raise ValueError(
                f"CustomCSPNet out_stages {list(out_stages)}; allowed: one or more, one per "
                f"stride, of (stage: stride) {strides}"
            )
        self._out_features = list(self._names.values())
        self._out_feature_channels = {name: shapes[i][0] for i, name in self._names.items()}
        self._out_feature_strides = {name: shapes[i][1] for i, name in self._names.items()}

    @property
    def size_divisibility(self) -> int:
        return math.lcm(*self._out_feature_strides.values())

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map images (N, 3, H, W) to ``{name: (N, channels, H / stride, W / stride)}``."""
        outputs = {}
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i in self._names:
                outputs[self._names[i]] = x
        return outputs


def _make_stage(index: int, form: list[Any], channels: int, style: Style) -> tuple[nn.Module, int]:
    """A stage of ``net_cfg`` for so many channels, and how many it gives."""
    kind, *numbers = form
    words = _FORMS.get(kind)
    if words is None or len(numbers) != len(words):
        allowed = "; ".join(f"{x}, {', '.join(y)}" for x, y in _FORMS.items())
        raise ValueError(f"CustomCSPNet stage {index} is {form}; allowed: {allowed}")
    if kind == "MaxPool":
        kernel_size, stride = numbers
        return nn.MaxPool2d(kernel_size, stride, padding=(kernel_size - 1) // 2), channels
    if numbers[0] != channels:
        raise ValueError(
            f"CustomCSPNet stage {index} takes {numbers[0]} channels; what is before it gives "
            f"{channels}"
        )
    if kind == "Conv":
        _, out_channels, kernel_size, stride = numbers
        return conv_norm_act(
            channels, out_channels, kernel_size, stride=stride, **style
        ), out_channels
    _, num_blocks, kernel_size, stride = numbers
    return CspBlock(channels, num_blocks, kernel_size, stride, style), 2 * channels
