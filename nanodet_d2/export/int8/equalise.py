"""Channels of one range between convolutions (Nagel et al. 2019, "Data-Free Quantization Through
Weight Equalization and Bias Correction", section 4.1).

All channels of a tensor share one grid, whose steps are those that the largest of them needs. A
ReLU of any slope lets a positive factor pass, and so does max pooling. So before them each channel
is stretched to the range of the largest, and the convolutions that follow take the factor back in
their weights: the network computes the same. (The paper takes a factor between that and the ranges
of the weights. Here the weights have a scale for each output channel and are rounded by GPTQ, which
does not mind.)

Letters: O output channels, I input channels of a group, C = groups * I input channels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor

from .network import Convolution, Network

FARTHEST = 100.0  # a channel that is next to nothing on these pictures may be more on others


def equalise(network: Network, peaks: Mapping[str, Tensor]) -> None:
    """Change the weights of convolutions that follow one another, in place.

    Args:
        peaks: of each convolution's input, the largest absolute value of each channel (C,).
    """
    found = network.convolutions
    for first, following in network.fans():
        factors = stretch(torch.stack([peaks[name] for name in following]).amax(dim=0))
        found[first] = scale_outputs(found[first], factors)
        for name in following:
            found[name] = scale_inputs(found[name], 1 / factors)


def stretch(peaks: Tensor) -> Tensor:
    """Factors (C,) of 1 or more that lift each channel's peak to the largest."""
    largest = peaks.max().clamp(min=1e-8)
    return largest / peaks.clamp(min=float(largest) / FARTHEST)


def scale_outputs(conv: Convolution, factors: Tensor) -> Convolution:
    """The convolution whose output channels are those of ``conv`` times ``factors`` (O,)."""
    weight = conv.weight * factors.view(-1, 1, 1, 1)
    bias = None if conv.bias is None else conv.bias * factors
    return dataclasses.replace(conv, weight=weight, bias=bias)


def scale_inputs(conv: Convolution, factors: Tensor) -> Convolution:
    """The convolution that does to x what ``conv`` does to x times ``factors`` (C,)."""
    of_groups = factors.view(conv.groups, -1)  # (groups, I)
    of_outputs = of_groups.repeat_interleave(len(conv.weight) // conv.groups, dim=0)  # (O, I)
    return dataclasses.replace(conv, weight=conv.weight * of_outputs[:, :, None, None])
