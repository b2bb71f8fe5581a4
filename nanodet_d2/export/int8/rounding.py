"""Weights on their grid so that errors make up for each other: GPTQ (Frantar et al. 2022,
"Accurate Post-Training Quantization for Generative Pre-trained Transformers", section 3).

Rounding to the nearest makes the smallest error of the weights. What counts is the error of the
output, w X for all inputs X that there are, that is (w - q) H (w - q)' with H = X X'. So a weight
is rounded after the other, and what its rounding adds to the output is taken off by those that are
still to come, as far as H says that their inputs go along with its.

The largest weight of each output channel stays as it is. It makes the grid, so whoever rounds these
weights once more, to the nearest, on a grid that the largest one makes, finds them as they are: all
engines do.

Letters: O output channels, K inputs of one of them, L positions.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .network import Convolution
from .scheme import MOST, rounded, weight_scales

POSITIONS = 256  # of a picture that are looked at, at even distances
DAMPING = 0.01  # of H's mean diagonal, as in the paper: what was hardly seen is not relied upon


def second_moment(conv: Convolution, x: Tensor) -> Tensor:
    """H (K, K), over some positions of one input (1, C, height, width) of a convolution."""
    size = conv.weight.shape[-2:]
    columns = F.unfold(x, size, conv.dilation, conv.padding, conv.stride)[0]  # (K, L)
    count = min(columns.shape[1], POSITIONS)
    some = columns[:, torch.linspace(0, columns.shape[1] - 1, count).long()]
    return some @ some.T


def round_weights(weight: Tensor, moment: Tensor) -> Tensor:
    """Weights (O, …) on the grid of their largest ones: each output channel by GPTQ, or to the
    nearest where that is better (with little or odd data it may be).

    Args:
        moment: H (K, K) of the inputs.
    """
    w, h = weight.flatten(1).double(), moment.double()
    by_gptq, nearest = gptq(w, h), rounded(w)
    better = output_error(w, by_gptq, h) < output_error(w, nearest, h)
    return torch.where(better[:, None], by_gptq, nearest).view_as(weight).to(weight)


def output_error(weight: Tensor, other: Tensor, moment: Tensor) -> Tensor:
    """Squared error (O,) of the outputs with ``other`` in place of ``weight``, both (O, K)."""
    off = weight - other
    return ((off @ moment) * off).sum(dim=1)


def gptq(weight: Tensor, moment: Tensor) -> Tensor:
    """Weights (O, K) on their grid; ``moment`` is H (K, K)."""
    scales, most = weight_scales(weight), weight.abs().argmax(dim=1)
    order = moment.diagonal().argsort(descending=True)  # the inputs that count most come first
    w, h = weight[:, order].clone(), moment[order][:, order]
    h = h + (DAMPING * h.diagonal().mean() + 1e-12) * torch.eye(len(h)).to(h)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(h))
    # Its row j, from j on: how those to come make up for an error of weight j (paper, step 3).
    shares = torch.linalg.cholesky(inverse, upper=True)
    result = torch.empty_like(w)
    for j in range(w.shape[1]):
        column = w[:, j]
        nearest = (column / scales).round().clamp(-MOST, MOST) * scales
        largest = weight[:, order[j]]
        result[:, j] = torch.where(most == order[j], largest, nearest)
        error = (column - result[:, j]) / shares[j, j]
        w[:, j + 1 :] -= error[:, None] * shares[j, j + 1 :]
    return result[:, order.argsort()]
