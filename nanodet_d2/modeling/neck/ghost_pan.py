"""GhostPAN: a path-aggregation network (Liu et al. 2018) made of ghost bottlenecks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from detectron2.layers import ShapeSpec
from torch import Tensor, nn

from nanodet_d2.layers import DepthwiseSeparableConv, GhostBottleneck, Style, conv_norm_act

from .pyramid import Pyramid


class GhostBlocks(nn.Module):
    """A chain of ghost bottlenecks, with an optional 1 x 1 residual around it."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        num_blocks: int,
        expand: float,
        kernel_size: int,
        residual: bool,
        norm: str,
        activation: str | None,
    ):
        super().__init__()
        self.blocks = nn.Sequential(
            *(
                GhostBottleneck(
                    in_channels if i == 0 else out_channels,
                    int(out_channels * expand),
                    out_channels,
                    kernel_size=kernel_size,
                    norm=norm,
                    activation=activation,
                )
                for i in range(num_blocks)
            )
        )
        self.residual = None
        if residual:
            self.residual = conv_norm_act(in_channels, out_channels, norm="", activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        out = self.blocks(x)
        return out if self.residual is None else out + self.residual(x)


class GhostPAN(Pyramid):
    """Top-down then bottom-up fusion of backbone features, plus an optional coarser level.

    Args:
        input_shapes: name -> ``ShapeSpec`` (channels, stride) of the backbone's features.
        in_features: names to take from ``input_shapes``, finest first; all, by stride, if None.
        out_channels: channels of every output level; even.
        use_depthwise: depthwise separable instead of full convolutions where a level is halved.
        kernel_size: of those, and of the depthwise convolution in the bottlenecks' shortcuts.
        expand: hidden channels of a bottleneck over its output channels.
        num_blocks: bottlenecks per fusion.
        residual: add a 1 x 1 convolution around each fusion.
        num_extra_levels: 0, or 1 for a level of twice the last stride.
        norm, activation: names as in ``nanodet_d2.layers``.

    Raises:
        ValueError: for features that are not there, levels whose strides do not follow one
            another, or an option out of range.
    """

    def __init__(
        self,
        input_shapes: Mapping[str, ShapeSpec],
        *,
        in_features: Sequence[str] | None = None,
        out_channels: int = 96,
        use_depthwise: bool = True,
        kernel_size: int = 5,
        expand: float = 1.0,
        num_blocks: int = 1,
        residual: bool = False,
        num_extra_levels: int = 1,
        norm: str = "BN",
        activation: str = "LeakyReLU",
    ):
        _check_options(out_channels=out_channels, num_blocks=num_blocks, extra=num_extra_levels)
        super().__init__(
            input_shapes,
            in_features=in_features,
            out_channels=out_channels,
            num_extra_levels=num_extra_levels,
        )
        style = Style(norm=norm, activation=activation)

        def resample(ratio: int) -> nn.Module:
            if use_depthwise:
                return DepthwiseSeparableConv(
                    out_channels, out_channels, kernel_size, stride=ratio, **style
                )
            return conv_norm_act(out_channels, out_channels, kernel_size, stride=ratio, **style)

        def fuse() -> GhostBlocks:
            return GhostBlocks(
                2 * out_channels,
                out_channels,
                num_blocks=num_blocks,
                expand=expand,
                kernel_size=kernel_size,
                residual=residual,
                **style,
            )

        self.reduce_layers = nn.ModuleList(
            conv_norm_act(shape.channels, out_channels, **style) for shape in self.shapes
        )
        self.top_down_blocks = nn.ModuleList(fuse() for _ in self.ratios)  # coarsest first
        self.downsamples = nn.ModuleList(resample(ratio) for ratio in self.ratios)
        self.bottom_up_blocks = nn.ModuleList(fuse() for _ in self.ratios)
        self.extra_in_convs = nn.ModuleList(resample(2) for _ in range(num_extra_levels))
        self.extra_out_convs = nn.ModuleList(resample(2) for _ in range(num_extra_levels))

    def forward(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Map ``{name: (N, C_i, H_i, W_i)}`` to ``{"p3": (N, out_channels, H, W), …}``.

        Raises:
            ValueError: if a level is not exactly its stride ratio finer than the next.
        """
        reduced = [
            layer(features[name]) for layer, name in zip(self.reduce_layers, self.in_features)
        ]
        outputs = self._bottom_up(self._top_down(reduced))
        for conv_in, conv_out in zip(self.extra_in_convs, self.extra_out_convs):
            outputs.append(conv_in(reduced[-1]) + conv_out(outputs[-1]))
        return dict(zip(self._output_shape, outputs))

    def _top_down(self, laterals: list[Tensor]) -> list[Tensor]:
        merged = [laterals[-1]]
        fine_to_coarse = list(zip(laterals[:-1], self.ratios))
        for block, (lateral, ratio) in zip(self.top_down_blocks, reversed(fine_to_coarse)):
            up = self.upsample(merged[0], ratio, like=lateral)
            merged.insert(0, block(torch.cat([up, lateral], dim=1)))
        return merged

    def _bottom_up(self, merged: list[Tensor]) -> list[Tensor]:
        outputs = merged[:1]
        for down, block, level in zip(self.downsamples, self.bottom_up_blocks, merged[1:]):
            outputs.append(block(torch.cat([down(outputs[-1]), level], dim=1)))
        return outputs


def _check_options(*, out_channels: int, num_blocks: int, extra: int) -> None:
    if out_channels < 2 or out_channels % 2:
        raise ValueError(f"GhostPAN out_channels {out_channels}; allowed: positive even numbers")
    if num_blocks < 1:
        raise ValueError(f"GhostPAN num_blocks {num_blocks}; allowed: 1 or more")
    if extra not in (0, 1):
        raise ValueError(f"GhostPAN num_extra_levels {extra}; allowed: 0 or 1")
