"""What goes in and out of convolutions, measured on pictures."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from .network import Convolution, Network
from .rounding import second_moment
from .scheme import Range, stored

LOOKED_AT = 512  # values of an output in a picture, at even distances
# Of an output's lower end. A ReLU shrinks what is below 0, so it may be worth clipping, for finer
# steps above 0.
LOWER = (1.0, 0.8, 0.6, 0.5, 0.4, 0.3, 0.25, 0.2, 0.15, 0.1)


@dataclasses.dataclass(frozen=True)
class Measured:
    """Of one convolution.

    Attributes:
        input: range of its input.
        output: of its output, before an activation.
        moment: (K, K), as of ``second_moment``; None for a depthwise one.
    """

    input: Range
    output: Range
    moment: Tensor | None


def input_peaks(network: Network, images: Iterable[Tensor]) -> dict[str, Tensor]:
    """The largest absolute value of each channel (C,) of the input of each convolution."""
    peaks: dict[str, Tensor] = {}

    def note(conv: Convolution, x: Tensor) -> Tensor:
        found = x.abs().amax(dim=(0, 2, 3))
        peaks[conv.name] = torch.maximum(peaks.get(conv.name, found), found)
        return conv(x)

    for image in images:
        network.run(image, note)
    return peaks


class _Notes:
    """Of one convolution on all pictures."""

    def __init__(self) -> None:
        self.inputs: list[Range] = []
        self.outputs: list[Range] = []
        self.samples: list[Tensor] = []
        self.moment: Tensor | None = None


def measure(network: Network, images: Iterable[Tensor]) -> dict[str, Measured]:
    """Ranges and moments of all convolutions but the last ones, which stay in float."""
    notes: dict[str, _Notes] = defaultdict(_Notes)

    def note(conv: Convolution, x: Tensor) -> Tensor:
        y = conv(x)
        if conv.last:
            return y
        of = notes[conv.name]
        of.inputs.append(picture_range(x))
        of.outputs.append(picture_range(y))
        of.samples.append(_some(y))
        if conv.groups == 1:
            moment = second_moment(conv, x)
            of.moment = moment if of.moment is None else of.moment + moment
        return y

    for image in images:
        network.run(image, note)
    return {
        name: Measured(
            input=mean_range(x.inputs),
            output=output_range(
                mean_range(x.outputs), torch.cat(x.samples), network.activation(name)
            ),
            moment=x.moment,
        )
        for name, x in notes.items()
    }


def picture_range(x: Tensor) -> Range:
    """Of all values, zero always in. Clipping what is rare costs more than it gains, once the
    channels are equalised."""
    low, high = torch.aminmax(x)
    return Range(min(float(low), 0.0), max(float(high), 0.0))


def mean_range(ranges: list[Range]) -> Range:
    """The mean of both ends, so that no picture alone stretches it."""
    count = len(ranges)
    return Range(sum(x.low for x in ranges) / count, sum(x.high for x in ranges) / count)


def output_range(
    whole: Range, samples: Tensor, activation: Callable[[Tensor], Tensor] | None
) -> Range:
    """The range with the least squared error after the activation that follows.

    Args:
        whole: of the output.
        samples: values of it.
    """
    if activation is None:
        return whole
    ranges = [Range(share * whole.low, whole.high) for share in LOWER]
    expected = activation(samples)
    errors = [
        (activation(stored(samples, x, symmetric=False)) - expected).square().mean() for x in ranges
    ]
    return ranges[int(torch.stack(errors).argmin())]


def _some(x: Tensor) -> Tensor:
    values = x.flatten()
    return values[torch.linspace(0, len(values) - 1, min(len(values), LOOKED_AT)).long()]
