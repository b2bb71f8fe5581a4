"""Generalized focal losses and GIoU, unreduced (Li et al. 2020; Rezatofighi et al. 2019).

Letters: C classes, R reg_max. Boxes are XYXY in pixels of the network input.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

IOU_EPS = 1e-6


def quality_focal_loss(logits: Tensor, labels: Tensor, scores: Tensor) -> Tensor:
    """Quality focal loss with beta = 2 (GFL, equation 5), summed over the classes.

    Args:
        logits: (…, C)
        labels: (…) the class of each prior; C is background.
        scores: (…) the quality that a positive's own class should predict.

    Returns:
        (…)
    """
    num_classes = logits.shape[-1]
    own = labels.clamp(max=num_classes - 1).unsqueeze(-1)
    own_logits = logits.gather(-1, own).squeeze(-1)
    correction = _focal(own_logits, scores) - _focal(own_logits, torch.zeros_like(scores))
    background = _focal(logits, torch.zeros_like(logits)).sum(dim=-1)
    return background + torch.where(labels < num_classes, correction, 0.0)


def _focal(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross entropy times the squared error."""
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return entropy * (target - logits.sigmoid()).square()


def distribution_focal_loss(box_logits: Tensor, distances: Tensor) -> Tensor:
    """Cross entropy against the two bins around a distance (GFL, equation 6), mean of 4 sides.

    Args:
        box_logits: (…, 4 * (R + 1))
        distances: (…, 4) in strides, within [0, R).

    Returns:
        (…)
    """
    log_p = box_logits.unflatten(-1, (4, -1)).log_softmax(dim=-1)
    left = distances.floor()
    weight_right = distances - left
    bins = torch.stack([left, left + 1], dim=-1).long()
    log_left, log_right = log_p.gather(-1, bins).unbind(dim=-1)
    return -(log_left * (1 - weight_right) + log_right * weight_right).mean(dim=-1)


def giou_loss(boxes: Tensor, targets: Tensor) -> Tensor:
    """1 - GIoU of aligned boxes (…, 4). Unlike fvcore's it makes no host synchronisation."""
    iou, union = _iou_and_union(boxes, targets)
    hull_size = torch.maximum(boxes[..., 2:], targets[..., 2:]) - torch.minimum(
        boxes[..., :2], targets[..., :2]
    )
    hull = hull_size.clamp(min=0).prod(dim=-1).clamp(min=IOU_EPS)
    return 1 - iou + (hull - union) / hull


def pairwise_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """IoU of all pairs: (…, A, 4) and (…, B, 4) to (…, A, B)."""
    return _iou_and_union(boxes1.unsqueeze(-2), boxes2.unsqueeze(-3))[0]


def pairwise_iof(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Intersection over the area of the first box: (…, A, 4) and (…, B, 4) to (…, A, B)."""
    boxes1, boxes2 = boxes1.unsqueeze(-2), boxes2.unsqueeze(-3)
    return _intersection(boxes1, boxes2) / box_area(boxes1).clamp(min=IOU_EPS)


def box_area(boxes: Tensor) -> Tensor:
    """Area (…) of boxes (…, 4)."""
    return (boxes[..., 2:] - boxes[..., :2]).prod(dim=-1)


def _intersection(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    size = torch.minimum(boxes1[..., 2:], boxes2[..., 2:]) - torch.maximum(
        boxes1[..., :2], boxes2[..., :2]
    )
    return size.clamp(min=0).prod(dim=-1)


def _iou_and_union(boxes1: Tensor, boxes2: Tensor) -> tuple[Tensor, Tensor]:
    intersection = _intersection(boxes1, boxes2)
    union = (box_area(boxes1) + box_area(boxes2) - intersection).clamp(min=IOU_EPS)
    return intersection / union, union
