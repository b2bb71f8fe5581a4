"""Ghost module and bottleneck (Han et al. 2020, "GhostNet", sections 3.1 and 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

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
    """Two ghost modules with a shortcut, which is an identity where the shapes agree."""

    def __init__(
        self,
        in_channels: int,
        mid_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        norm: str = "BN",
        activation: str | None = "ReLU",
    ):
        super().__init__()
        self.expand = GhostModule(in_channels, mid_channels, norm=norm, activation=activation)
        self.project = GhostModule(mid_channels, out_channels, norm=norm, activation=None)
        self.shortcut = nn.Identity()
        if in_channels != out_channels:
            self.shortcut = _conv_shortcut(in_channels, out_channels, kernel_size, norm)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.expand(x)) + self.shortcut(x)


def _conv_shortcut(
    in_channels: int, out_channels: int, kernel_size: int, norm: str
) -> nn.Sequential:
    shortcut = nn.Sequential(
        conv_norm_act(
            in_channels,
            in_channels,
            kernel_size,
            groups=in_channels,
            norm=norm,
            activation=None,
        ),
        conv_norm_act(in_channels, out_channels, norm=norm, activation=None),
    )
    for conv in shortcut:
        conv.reset_parameters()  # the reference leaves torch's default here
    return shortcut
