"""Boxes as distributions over distances from a prior (Li et al. 2020, "Generalized Focal Loss").

Letters: N images, P priors, R reg_max. Boxes are XYXY in pixels of the network input, a prior is
``[cx, cy, stride]`` in the same pixels, and distances are ``[left, top, right, bottom]``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# Targets stay this far below reg_max, so that the bin on their right exists.
DISTANCE_MARGIN = 0.1


def grid_priors(
    sizes: Sequence[Sequence[int]],
    strides: Sequence[int],
    device: torch.device,
    *,
    offset: float = 0.0,
) -> Tensor:
    """Priors of all levels, finest first, each row by row.

    NanoDet-Plus puts them at ``index * stride``, with no half-cell offset; its elders have one.

    Args:
        sizes: (H, W) of each level.
        strides: pixels per cell of each level.
        offset: of a prior from its cell's upper left corner, in strides.

    Returns:
        (P, 3) float32.
    """
    levels = []
    for (height, width), stride in zip(sizes, strides):
        y = (torch.arange(height, device=device, dtype=torch.float32) + offset) * stride
        x = (torch.arange(width, device=device, dtype=torch.float32) + offset) * stride
        yy, xx = torch.meshgrid(y, x, indexing="ij")
        levels.append(torch.stack([xx, yy, torch.full_like(xx, stride)], dim=-1).flatten(0, 1))
    return torch.cat(levels)


def expected_distances(box_logits: Tensor, bins: Tensor) -> Tensor:
    """Mean of the softmax over the bins (GFL, equation 4), in strides.

    Args:
        box_logits: (…, 4 * (R + 1)), the bins of a side side by side.
        bins: (R + 1,) the distance each bin stands for, 0…R.

    Returns:
        (…, 4)
    """
    sides = box_logits.unflatten(-1, (4, -1))
    # Faster than softmax, which on a CPU is slow over so few values.
    weights = (sides - sides.amax(dim=-1, keepdim=True)).exp()
    return (weights * bins).sum(dim=-1) / weights.sum(dim=-1)


def decode_boxes(priors: Tensor, distances: Tensor) -> Tensor:
    """Boxes (…, P, 4) from priors (…, P, 3) and distances (…, P, 4) in strides; not clipped."""
    centers, strides = priors[..., :2], priors[..., 2:]
    pixels = distances * strides
    return torch.cat([centers - pixels[..., :2], centers + pixels[..., 2:]], dim=-1)


def encode_distances(priors: Tensor, boxes: Tensor, reg_max: int) -> Tensor:
    """Inverse of :func:`decode_boxes`, clipped to [0, reg_max - 0.1]."""
    centers, strides = priors[..., :2], priors[..., 2:]
    pixels = torch.cat([centers - boxes[..., :2], boxes[..., 2:] - centers], dim=-1)
    return (pixels / strides).clamp(min=0, max=reg_max - DISTANCE_MARGIN)
