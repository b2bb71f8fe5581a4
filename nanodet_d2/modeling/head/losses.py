"""Generalized focal losses and GIoU, unreduced (Li et al. 2020; Rezatofighi et al. 2019).

Letters: C classes, R reg_max. Boxes are XYXY in pixels of the network input. Tensors made here are
overwritten where that is possible: on a CPU, most of the time goes into touching new memory.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

IOU_EPS = 1e-6


def background_focal_loss(logits: Tensor) -> Tensor:
    """Quality focal loss with beta = 2 (GFL, equation 5) of priors without an object.

    This is the only term that is due for every prior and class, so it keeps nothing but its input
    for the backward pass.

    Args:
        logits: (…, C)

    Returns:
        (…), summed over the classes.
    """
    return _BackgroundFocalLoss.apply(logits)


def focal_correction(own_logits: Tensor, scores: Tensor) -> Tensor:
    """What an object of class c adds to the :func:`background_focal_loss` of its prior.

    Args:
        own_logits: (…) logits of c.
        scores: (…) the quality that the prediction of c should have.

    Returns:
        (…)
    """
    # (entropy - own scores) (scores - sigmoid)^2 - entropy sigmoid^2, in fewer steps
    entropy, sigmoid = softplus(own_logits), own_logits.sigmoid()
    error = scores - sigmoid
    change = (error - sigmoid).mul_(entropy)
    return change.sub_(error.square_().mul_(own_logits)).mul_(scores)


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)) of x (…). On a CPU torch's own is a scalar loop, and 20 times slower."""
    magnitude = x.abs()
    return (x + magnitude).div_(2).sub_(magnitude.sigmoid_().log())


class _BackgroundFocalLoss(torch.autograd.Function):
    """softplus(x) sigmoid(x)^2, summed over the last dimension, in two tensors of x's size."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        ctx.save_for_backward(logits)
        entropy, sigmoid = _softplus_and_sigmoid(logits)
        return entropy.mul_(sigmoid.square_()).sum(dim=-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (logits,) = ctx.saved_tensors
        entropy, sigmoid = _softplus_and_sigmoid(logits)
        slope = entropy.addcmul_(entropy, sigmoid, value=-1).mul_(2).add_(sigmoid)
        return slope.mul_(sigmoid.square_()).mul_(gradient.unsqueeze(-1))


def _softplus_and_sigmoid(x: Tensor) -> tuple[Tensor, Tensor]:
    entropy = x.clamp(min=0)
    scratch = x.abs().sigmoid_().log_()
    entropy.sub_(scratch)
    return entropy, scratch.copy_(x).sigmoid_()


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
    width, height = hull_size.clamp(min=0).unbind(dim=-1)
    hull = (width * height).clamp(min=IOU_EPS)
    return 1 - iou + (hull - union) / hull


def aligned_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """IoU (…) of boxes (…, 4) with the box in the same place of the other."""
    return _iou_and_union(boxes1, boxes2)[0]


def pairwise_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """IoU of all pairs: (…, A, 4) and (…, B, 4) to (…, A, B)."""
    return _iou_and_union(boxes1.unsqueeze(-2), boxes2.unsqueeze(-3))[0]


def pairwise_iof(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Intersection over the area of the first box: (…, A, 4) and (…, B, 4) to (…, A, B)."""
    boxes1, boxes2 = boxes1.unsqueeze(-2), boxes2.unsqueeze(-3)
    return _intersection(boxes1, boxes2) / box_area(boxes1).clamp(min=IOU_EPS)


def box_area(boxes: Tensor) -> Tensor:
    """Area (…) of boxes (…, 4)."""
    width, height = (boxes[..., 2:] - boxes[..., :2]).unbind(dim=-1)
    return width * height  # the gradient of prod() would look for zeros, and wait for the device


def _intersection(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    left1, top1, right1, bottom1 = boxes1.unbind(dim=-1)
    left2, top2, right2, bottom2 = boxes2.unbind(dim=-1)
    width = torch.minimum(right1, right2).sub_(torch.maximum(left1, left2)).clamp_(min=0)
    height = torch.minimum(bottom1, bottom2).sub_(torch.maximum(top1, top2)).clamp_(min=0)
    return width.mul_(height)


def _iou_and_union(boxes1: Tensor, boxes2: Tensor) -> tuple[Tensor, Tensor]:
    intersection = _intersection(boxes1, boxes2)
    union = (box_area(boxes1) + box_area(boxes2)).sub_(intersection).clamp_(min=IOU_EPS)
    return intersection.div_(union), union
