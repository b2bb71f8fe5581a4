"""Straightforward, per-image assignment and loss after the formulas of the reference.

Slow and simple on purpose: the batched implementation is checked against it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def iou_matrix(a: Tensor, b: Tensor) -> Tensor:
    """IoU of boxes (A, 4) and (B, 4): (A, B)."""
    low = torch.max(a[:, None, :2], b[None, :, :2])
    high = torch.min(a[:, None, 2:], b[None, :, 2:])
    inter = (high - low).clamp(min=0).prod(2)
    area_a, area_b = ((x[:, 2:] - x[:, :2]).prod(1) for x in (a, b))
    return inter / (area_a[:, None] + area_b[None] - inter).clamp(min=1e-6)


def giou(a: Tensor, b: Tensor) -> Tensor:
    """GIoU of one box (4,) with another (4,)."""
    low, high = torch.max(a[:2], b[:2]), torch.min(a[2:], b[2:])
    inter = (high - low).clamp(min=0).prod()
    union = ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - inter).clamp(min=1e-6)
    hull = (torch.max(a[2:], b[2:]) - torch.min(a[:2], b[:2])).clamp(min=0).prod().clamp(min=1e-6)
    return inter / union - (hull - union) / hull


def assign(
    logits: Tensor, boxes: Tensor, priors: Tensor, gt_boxes: Tensor, gt_classes: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Labels (P,), scores (P,) and matched ground truth (P,), -1 for none, of one image."""
    num_priors, num_classes = logits.shape
    labels = torch.full((num_priors,), num_classes)
    scores = torch.zeros(num_priors)
    owner = torch.full((num_priors,), -1)
    if len(gt_boxes) == 0:
        return labels, scores, owner
    x, y = priors[:, 0, None], priors[:, 1, None]
    sides = torch.stack(
        [x - gt_boxes[:, 0], y - gt_boxes[:, 1], gt_boxes[:, 2] - x, gt_boxes[:, 3] - y]
    )
    candidates = (sides.amin(0) > 0).any(1).nonzero().flatten()
    if len(candidates) == 0:
        return labels, scores, owner
    iou = iou_matrix(boxes[candidates], gt_boxes)
    cost = torch.zeros_like(iou)
    for j, label in enumerate(gt_classes.tolist()):
        target = torch.zeros(len(candidates), num_classes)
        target[:, label] = iou[:, j]
        raw = logits[candidates]
        entropy = F.binary_cross_entropy_with_logits(raw, target, reduction="none")
        cost[:, j] = (entropy * (target - raw.sigmoid()).abs() ** 2).sum(1)
    cost = cost - 3 * torch.log(iou + 1e-7)
    matched = torch.zeros_like(iou, dtype=torch.bool)
    for j in range(len(gt_boxes)):
        k = max(1, int(iou[:, j].topk(min(13, len(candidates))).values.sum()))
        matched[cost[:, j].topk(k, largest=False).indices, j] = True
    for row, prior in enumerate(candidates.tolist()):
        mine = matched[row].nonzero().flatten()
        if len(mine) == 0:
            continue
        j = int(mine[0]) if len(mine) == 1 else int(cost[row].argmin())
        owner[prior], labels[prior], scores[prior] = j, gt_classes[j], iou[row, j]
    return labels, scores, owner


def decode(raw: Tensor, priors: Tensor, num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Class logits (P, C), box logits (P, 4, R + 1) and boxes (P, 4) of one image."""
    logits, box_logits = raw[:, :num_classes], raw[:, num_classes:].reshape(len(raw), 4, -1)
    bins = torch.arange(box_logits.shape[2])
    d = (box_logits.softmax(2) * bins).sum(2) * priors[:, 2:]
    low, high = priors[:, :2] - d[:, :2], priors[:, :2] + d[:, 2:]
    return logits, box_logits, torch.cat([low, high], 1)


def losses(
    raw: Tensor, aux_raw: Tensor | None, priors: Tensor, truth: list[tuple[Tensor, Tensor]]
) -> dict[str, Tensor]:
    """The weighted losses of a batch (N, P, C + 4 * 8); ``truth`` is (boxes, classes) per image."""
    num_classes = raw.shape[2] - 32
    guide = raw if aux_raw is None else aux_raw
    targets = []
    for x, (gt_boxes, gt_classes) in zip(guide.detach(), truth):
        logits, _, boxes = decode(x, priors, num_classes)
        targets.append(assign(logits, boxes, priors, gt_boxes, gt_classes))
    result = {}
    for prefix, outputs in (("", raw), ("aux_", aux_raw)):
        if outputs is not None:
            terms = _branch(outputs, priors, truth, targets, num_classes)
            result.update({prefix + name: value for name, value in terms.items()})
    return result


def _branch(raw, priors, truth, targets, num_classes):
    num_positive = max(sum(int((owner >= 0).sum()) for _, _, owner in targets), 1)
    qfl = bbox = dfl = torch.zeros(())
    weight_sum = torch.zeros(())
    for x, (gt_boxes, _), (labels, scores, owner) in zip(raw, truth, targets):
        logits, box_logits, boxes = decode(x, priors, num_classes)
        target = torch.zeros_like(logits)
        positive = (owner >= 0).nonzero().flatten()
        target[positive, labels[positive]] = scores[positive]
        entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        qfl = qfl + (entropy * (target - logits.sigmoid()) ** 2).sum()
        for i in positive.tolist():
            weight = logits[i].detach().sigmoid().max()
            box = gt_boxes[owner[i]]
            weight_sum = weight_sum + weight
            bbox = bbox + weight * (1 - giou(boxes[i], box))
            px, py, stride = priors[i]
            sides = torch.stack([px - box[0], py - box[1], box[2] - px, box[3] - py]) / stride
            for bins, t in zip(box_logits[i], sides.clamp(0, 6.9)):
                left = int(t)
                log_p = bins.log_softmax(0)
                loss = -(left + 1 - t) * log_p[left] - (t - left) * log_p[left + 1]
                dfl = dfl + weight * loss
    total = weight_sum.clamp(min=1)
    return {
        "loss_qfl": qfl / num_positive,
        "loss_bbox": 2 * bbox / total,
        "loss_dfl": 0.25 * dfl / (4 * total),
    }
