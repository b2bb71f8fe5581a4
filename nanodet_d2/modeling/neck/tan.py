"""TAN: a neck whose levels meet in a transformer, that of NanoDet-t."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from detectron2.layers import ShapeSpec
from torch import Tensor, nn
from torch.nn import functional as F

from nanodet_d2.layers import LEAKY_SLOPE, conv_norm_act

from .pyramid import Pyramid

LEVELS = 3


class TAN(Pyramid):
    """Three levels joined at the size of the middle one, mixed by attention, and added to each.

    Letters: N images, F channels, T = H * W cells of the middle level.

    Args:
        input_shapes: name -> ``ShapeSpec`` (channels, stride) of the backbone's features.
        in_features: names of three of them, finest first; all, by stride, if None.
        out_channels: F.
        feature_size: (height, width) of the middle level, in cells, that positions are learnt for;
            for others they are interpolated. (The reference takes no others.)
        num_heads: of the attention; F is a multiple of it.
        num_encoders: transformer layers.
        mlp_ratio: hidden channels of their perceptrons over F.
        dropout: probability, in training.
        norm, activation: of the lateral convolutions, names as in ``nanodet_d2.layers``.

    Raises:
        ValueError: for another number of features, those that are not there or whose strides do not
            follow one another, or channels that the heads cannot share.
    """

    def __init__(
        self,
        input_shapes: Mapping[str, ShapeSpec],
        *,
        in_features: Sequence[str] | None = None,
        out_channels: int = 128,
        feature_size: Sequence[int] = (20, 20),
        num_heads: int = 8,
        num_encoders: int = 1,
        mlp_ratio: int = 4,
        dropout: float = 0.1,
        norm: str = "BN",
        activation: str = "LeakyReLU",
    ):
        super().__init__(input_shapes, in_features=in_features, out_channels=out_channels)
        if len(self.shapes) != LEVELS:
            raise ValueError(f"TAN in_features {self.in_features}; allowed: {LEVELS} of them")
        if out_channels % num_heads:
            raise ValueError(
                f"TAN out_channels {out_channels}, num_heads {num_heads}; allowed: a multiple of "
                "the other"
            )
        self.feature_size = (int(feature_size[0]), int(feature_size[1]))
        self.lateral_convs = nn.ModuleList(
            conv_norm_act(shape.channels, out_channels, norm=norm, activation=activation)
            for shape in self.shapes
        )
        self.mix = conv_norm_act(LEVELS * out_channels, out_channels, norm="", activation="ReLU")
        cells = self.feature_size[0] * self.feature_size[1]
        self.pos_embed = nn.Parameter(torch.zeros(cells, 1, out_channels))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.encoders = nn.ModuleList()
        for _ in range(num_encoders):
            encoder = nn.TransformerEncoderLayer(
                out_channels,
                num_heads,
                dim_feedforward=mlp_ratio * out_channels,
                dropout=dropout,
                activation=nn.LeakyReLU(LEAKY_SLOPE),
                norm_first=True,
            )
            encoder.dropout1.p = 0.0  # the reference has none behind the attention
            self.encoders.append(encoder)

    def forward(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Map ``{name: (N, C_i, H_i, W_i)}`` to ``{"p3": (N, F, H, W), …}``.

        Raises:
            ValueError: if a level is not exactly its stride ratio finer than the next.
        """
        levels = [conv(features[name]) for conv, name in zip(self.lateral_convs, self.in_features)]
        fine, middle, coarse = levels
        to_fine, to_coarse = self.ratios
        up = self.upsample(coarse, to_coarse, like=middle)
        joined = self.mix(torch.cat([self.downsample(fine, to_fine), middle, up], dim=1))
        mixed = self._attend(joined)
        outputs = [
            fine + self.upsample(mixed, to_fine, like=fine),
            middle + mixed,
            coarse + self.downsample(mixed, to_coarse),
        ]
        return dict(zip(self._output_shape, outputs))

    def _attend(self, x: Tensor) -> Tensor:
        """(N, F, H, W) to the same, each cell mixed from all."""
        size = x.shape[-2:]
        cells = (x + self._positions(*size)).flatten(2).permute(2, 0, 1)  # (T, N, F)
        for encoder in self.encoders:
            cells = encoder(cells)
        # By way of (N, H, W, F): ncnn's converter loses a permutation that comes before a reshape.
        return cells.permute(1, 0, 2).unflatten(1, size).permute(0, 3, 1, 2)

    def _positions(self, height: int, width: int) -> Tensor:
        """(1, F, H, W) for a middle level of (height, width).

        As a map, not in the parameter's (T, 1, F): ncnn's converter drops only a first axis of 1.
        """
        grid = self.pos_embed.permute(1, 2, 0).unflatten(2, self.feature_size)
        if (height, width) == self.feature_size:
            return grid
        return F.interpolate(grid, size=(height, width), mode="bilinear")
