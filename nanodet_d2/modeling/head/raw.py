"""The raw output that main and auxiliary head share: class and box logits of every prior.

Letters: N images, P priors, C classes, R reg_max.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .box_coding import decode_boxes, expected_distances

PRIOR_PROBABILITY = 0.01  # of a class before training (Lin et al. 2017, section 4.1)
PRIOR_BIAS = -math.log((1 - PRIOR_PROBABILITY) / PRIOR_PROBABILITY)


class Predictions(NamedTuple):
    """A head's float32 output, split and decoded."""

    logits: Tensor  # (N, P, C)
    box_logits: Tensor  # (N, P, 4 * (R + 1))
    boxes: Tensor  # (N, P, 4) XYXY, pixels of the network input, not clipped

    @classmethod
    def from_raw(cls, raw: Tensor, priors: Tensor, bins: Tensor) -> Predictions:
        """Split a raw output (N, P, C + 4 * (R + 1)) and decode its boxes in float32.

        ``priors`` is (P, 3) or (N, P, 3), ``bins`` (R + 1,).
        """
        logits, box_logits = raw.float().tensor_split([raw.shape[-1] - 4 * len(bins)], dim=-1)
        boxes = decode_boxes(priors, expected_distances(box_logits, bins))
        return cls(logits, box_logits, boxes)


def flatten_levels(levels: Sequence[Tensor]) -> Tensor:
    """Join maps (N, K, H, W) of all levels to (N, P, K), row by row, in level order."""
    return torch.cat([x.flatten(2) for x in levels], dim=2).transpose(1, 2)


def init_normal(module: nn.Module, bias: float = 0.0) -> None:
    """N(0, 0.01) weights and a constant bias for every convolution in ``module``."""
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d):
            nn.init.normal_(conv.weight, std=0.01)
            if conv.bias is not None:
                nn.init.constant_(conv.bias, bias)
