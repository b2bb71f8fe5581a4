"""What necks share: which features they take, and how their levels follow one another."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from detectron2.layers import ShapeSpec
from torch import Tensor, nn
from torch.nn import functional as F


class Pyramid(nn.Module):
    """A neck from some features of a backbone to levels ``p3, p4, …`` of equal channels.

    Args:
        input_shapes: name -> ``ShapeSpec`` (channels, stride) of the backbone's features.
        in_features: names to take from ``input_shapes``, finest first; all, by stride, if None.
        out_channels: channels of every output level.
        num_extra_levels: coarser than the features, each of twice the stride before.

    Attributes:
        shapes: of the features that are taken.
        ratios: how many times coarser each of these is than the one before: 1 or 2.

    Raises:
        ValueError: for features that are not there, or levels whose strides do not follow one
            another.
    """

    def __init__(
        self,
        input_shapes: Mapping[str, ShapeSpec],
        *,
        in_features: Sequence[str] | None,
        out_channels: int,
        num_extra_levels: int = 0,
    ):
        super().__init__()
        self._name = type(self).__name__
        self.in_features = self._select_features(input_shapes, in_features)
        self.shapes = [input_shapes[name] for name in self.in_features]
        strides = [shape.stride for shape in self.shapes]
        self.ratios = self._stride_ratios(strides)
        # A feature of this stride is up-sampled to the size of a finer one.
        self.size_divisibility = max(strides)
        self._output_shape = _pyramid_shape(strides, out_channels, num_extra_levels)

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each output level, finest first."""
        return dict(self._output_shape)

    def upsample(self, x: Tensor, ratio: int, like: Tensor) -> Tensor:
        """A level (N, C, H, W), ``ratio`` times as fine, which has to be as large as ``like``.

        Raises:
            ValueError: if it is not.
        """
        up = F.interpolate(x, scale_factor=float(ratio), mode="bilinear") if ratio > 1 else x
        if up.shape[-2:] != like.shape[-2:]:
            raise ValueError(
                f"{self._name}: a level of {tuple(x.shape[-2:])} does not up-sample by {ratio} to "
                f"{tuple(like.shape[-2:])}; pad the input to a multiple of {self.size_divisibility}"
            )
        return up

    def downsample(self, x: Tensor, ratio: int) -> Tensor:
        """A level (N, C, H, W), ``ratio`` times as coarse: what the reference interpolates there is
        the mean of four."""
        return F.avg_pool2d(x, ratio) if ratio > 1 else x

    def _select_features(
        self, input_shapes: Mapping[str, ShapeSpec], in_features: Sequence[str] | None
    ) -> list[str]:
        if in_features is None:
            return sorted(input_shapes, key=lambda name: input_shapes[name].stride)
        missing = [name for name in in_features if name not in input_shapes]
        if missing:
            raise ValueError(
                f"{self._name} in_features {missing}; the backbone has {list(input_shapes)}"
            )
        return list(in_features)

    def _stride_ratios(self, strides: Sequence[int]) -> list[int]:
        if any(coarse not in (fine, 2 * fine) for fine, coarse in zip(strides, strides[1:])):
            raise ValueError(
                f"{self._name}: features {self.in_features} have strides {list(strides)}; "
                "allowed: each equal to or twice the one before"
            )
        return [coarse // fine for fine, coarse in zip(strides, strides[1:])]


def _pyramid_shape(
    strides: Sequence[int], channels: int, num_extra_levels: int
) -> dict[str, ShapeSpec]:
    strides = [*strides, *(strides[-1] * 2 ** (i + 1) for i in range(num_extra_levels))]
    first = int(math.log2(strides[0]))
    return {
        f"p{first + i}": ShapeSpec(channels=channels, stride=stride)
        for i, stride in enumerate(strides)
    }
