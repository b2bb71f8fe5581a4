"""How numbers are stored in eight bits, and what that makes of a tensor."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

MOST = 127  # of a signed number; -128 is not used, so that both signs have the same grid
SMALLEST = 1e-12  # of a scale, for what is zero everywhere


@dataclasses.dataclass(frozen=True)
class Scheme:
    """What an engine quantises of a convolution beside its weights, which all engines store signed
    and with a scale for each output channel.

    Attributes:
        symmetric: inputs are int8 without a zero point; uint8 with one if not.
        outputs: the output is stored in eight bits as well, before its activation.
        depthwise: depthwise convolutions are quantised, too.
    """

    symmetric: bool
    outputs: bool
    depthwise: bool


@dataclasses.dataclass(frozen=True)
class Range:
    """Smallest and largest value that is stored; what is beyond them is clipped.

    Attributes:
        low: 0 or less.
        high: 0 or more.
    """

    low: float
    high: float

    @property
    def peak(self) -> float:
        """The largest absolute value."""
        return max(-self.low, self.high)

    def grid(self, *, symmetric: bool) -> tuple[float, int]:
        """Scale and zero point: a value is stored as ``round(value / scale) + zero point``."""
        if symmetric:
            return max(self.peak / MOST, SMALLEST), 0
        scale = max((self.high - self.low) / 255, SMALLEST)
        return scale, round(-self.low / scale)


def stored(x: Tensor, range: Range, *, symmetric: bool) -> Tensor:
    """What is left of float values after they were stored."""
    scale, zero = range.grid(symmetric=symmetric)
    limits = (-MOST, MOST) if symmetric else (0, 255)
    return torch.fake_quantize_per_tensor_affine(x, scale, zero, *limits)


def weight_scales(weight: Tensor) -> Tensor:
    """The scale of each output channel (O,) of weights (O, …): its largest value is 127 of them."""
    return (weight.flatten(1).abs().amax(dim=1) / MOST).clamp(min=SMALLEST)


def rounded(weight: Tensor) -> Tensor:
    """What is left of weights (O, …) when each is rounded to the nearest."""
    scales = weight_scales(weight).view(-1, *[1] * (weight.dim() - 1))
    return (weight / scales).round().clamp(-MOST, MOST) * scales
