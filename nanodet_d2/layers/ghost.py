"""Ghost module and bottleneck (Han et al. 2020, "GhostNet", sections 3.1 and 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import SqueezeExcitation

from .conv import conv_norm_act


class GhostModule(nn.Module):
    """Half of the channels by a 1 x 1 convolution, the other half from those by a depthwise 3 x 3.

    Raises:
        ValueError: if ``out_channels`` is odd.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        norm: str = "BN",
        activation: str | None = "ReLU",
    ):
        super().__init__()
        if out_channels % 2:
            raise ValueError(f"GhostModule needs an even number of channels, got {out_channels}")
        half = out_channels // 2
        self.primary = conv_norm_act(in_channels, half, norm=norm, activation=activation)
        self.cheap = conv_norm_act(half, half, 3, groups=half, norm=norm, activation=activation)
        for conv in (self.primary, self.cheap):
            conv.reset_parameters()  # the reference leaves torch's default here

    def forward(self, x: Tensor) -> Tensor:
        primary = self.primary(x)
        return torch.cat([primary, self.cheap(primary)], dim=1)


class GhostBottleneck(nn.Module):
    """Two ghost modules, with a depthwise convolution between them where the size is halved.

    The shortcut is an identity where the shapes agree.

    Args:
        kernel_size: of the depthwise convolutions here and in the shortcut.
        stride: 1 or 2.
        se_channels: hidden channels of a squeeze-and-excitation between the two; none if 0.
        norm, activation: names; the activation is that of the first ghost module only.
    """

    def __init__(
        self,
        in_channels: int,
        mid_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        se_channels: int = 0,
        norm: str = "BN",
        activation: str | None = "ReLU",
    ):
        super().__init__()

        def depthwise(channels: int) -> nn.Module:
            return _plain_conv(channels, channels, kernel_size, stride, channels, norm)

        self.expand = GhostModule(in_channels, mid_channels, norm=norm, activation=activation)
        self.downsample = depthwise(mid_channels) if stride > 1 else nn.Identity()
        self.se: nn.Module = nn.Identity()
        if se_channels:
            # Its ReLU stays whatever the network's activation is.
            self.se = SqueezeExcitation(mid_channels, se_channels, scale_activation=nn.Hardsigmoid)
        self.project = GhostModule(mid_channels, out_channels, norm=norm, activation=None)
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels or stride > 1:
            self.shortcut = nn.Sequential(
                depthwise(in_channels), _plain_conv(in_channels, out_channels, 1, 1, 1, norm)
            )

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.se(self.downsample(self.expand(x)))
        return self.project(hidden) + self.shortcut(x)


def _plain_conv(
    in_channels: int, out_channels: int, kernel_size: int, stride: int, groups: int, norm: str
) -> nn.Module:
    conv = conv_norm_act(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        groups=groups,
        norm=norm,
        activation=None,
    )
    conv.reset_parameters()  # the reference leaves torch's default here
    return conv
