"""The necks before GhostPAN: sums of levels that are brought to each other's size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from detectron2.layers import ShapeSpec
from torch import Tensor, nn

from nanodet_d2.layers import Style, conv_norm_act

from .pyramid import Pyramid


class FPN(Pyramid):
    """Lateral 1 x 1 convolutions, then finer levels take up coarser ones (Lin et al. 2017).

    Unlike detectron2's it has no 3 x 3 convolutions behind, and is bilinear.

    Args:
        input_shapes: name -> ``ShapeSpec`` (channels, stride) of the backbone's features.
        in_features: names to take from ``input_shapes``, finest first; all, by stride, if None.
        out_channels: channels of every output level.
        norm, activation: of the lateral convolutions, names as in ``nanodet_d2.layers``; none by
            default.

    Raises:
        ValueError: for features that are not there, or levels whose strides do not follow one
            another.
    """

    def __init__(
        self,
        input_shapes: Mapping[str, ShapeSpec],
        *,
        in_features: Sequence[str] | None = None,
        out_channels: int = 96,
        norm: str = "",
        activation: str | None = None,
    ):
        super().__init__(input_shapes, in_features=in_features, out_channels=out_channels)
        style = Style(norm=norm, activation=activation)
        convs = [conv_norm_act(shape.channels, out_channels, **style) for shape in self.shapes]
        for conv in convs:
            nn.init.xavier_uniform_(conv.weight)
        self.lateral_convs = nn.ModuleList(convs)

    def forward(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Map ``{name: (N, C_i, H_i, W_i)}`` to ``{"p3": (N, out_channels, H, W), …}``.

        Raises:
            ValueError: if a level is not exactly its stride ratio finer than the next.
        """
        laterals = [
            conv(features[name]) for conv, name in zip(self.lateral_convs, self.in_features)
        ]
        return dict(zip(self._output_shape, self.merge(laterals)))

    def merge(self, laterals: Sequence[Tensor]) -> list[Tensor]:
        """Levels of equal channels, finest first, to the outputs."""
        merged = [laterals[-1]]
        for lateral, ratio in zip(reversed(laterals[:-1]), reversed(self.ratios)):
            merged.insert(0, lateral + self.upsample(merged[0], ratio, like=lateral))
        return merged


class PAN(FPN):
    """An ``FPN`` whose coarser levels then take up finer ones (Liu et al. 2018, without weights).

    Args, Raises:
        as of ``FPN``.
    """

    def merge(self, laterals: Sequence[Tensor]) -> list[Tensor]:
        """Levels of equal channels, finest first, to the outputs."""
        merged = super().merge(laterals)
        outputs = merged[:1]
        for level, ratio in zip(merged[1:], self.ratios):
            outputs.append(level + self.downsample(outputs[-1], ratio))
        return outputs
