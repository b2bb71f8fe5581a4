"""Straightforward, per-image assignment and loss after the formulas of the reference.

The batched implementation is checked against it, and measured beside it.
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
    """GIoU of boxes (A, 4) with boxes (A, 4): (A,)."""
    low, high = torch.max(a[:, :2], b[:, :2]), torch.min(a[:, 2:], b[:, 2:])
    inter = (high - low).clamp(min=0).prod(1)
    area_a, area_b = ((x[:, 2:] - x[:, :2]).prod(1) for x in (a, b))
    union = (area_a + area_b - inter).clamp(min=1e-6)
    size = torch.max(a[:, 2:], b[:, 2:]) - torch.min(a[:, :2], b[:, :2])
    hull = size.clamp(min=0).prod(1).clamp(min=1e-6)
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
    classes = F.one_hot(gt_classes, num_classes)
    target = classes * iou[:, :, None]  # (V, G, C)
    raw = logits[candidates][:, None].expand_as(target)
    entropy = F.binary_cross_entropy_with_logits(raw, target, reduction="none")
    cost = (entropy * (target - raw.sigmoid()).abs() ** 2).sum(2) - 3 * torch.log(iou + 1e-7)
    matched = torch.zeros_like(iou, dtype=torch.bool)
    top = iou.topk(min(13, len(candidates)), dim=0).values.sum(0)
    for j, total in enumerate(top):
        k = max(1, int(total))
        matched[cost[:, j].topk(k, largest=False).indices, j] = True
    several = matched.sum(1) > 1
    matched[several] = F.one_hot(cost[several].argmin(1), len(gt_boxes)).bool()
    rows, columns = matched.nonzero(as_tuple=True)
    owner[candidates[rows]] = columns
    labels[candidates[rows]] = gt_classes[columns]
    scores[candidates[rows]] = iou[rows, columns]
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
        if len(positive) == 0:
            continue
        weight = logits[positive].detach().sigmoid().amax(1)
        weight_sum = weight_sum + weight.sum()
        matched = gt_boxes[owner[positive]]
        bbox = bbox + (weight * (1 - giou(boxes[positive], matched))).sum()
        centers, strides = priors[positive, :2], priors[positive, 2:]
        sides = torch.cat([centers - matched[:, :2], matched[:, 2:] - centers], 1) / strides
        sides = sides.clamp(0, 6.9).flatten()
        left = sides.long()
        rows = box_logits[positive].flatten(0, 1)
        low = F.cross_entropy(rows, left, reduction="none") * (left + 1 - sides)
        high = F.cross_entropy(rows, left + 1, reduction="none") * (sides - left)
        dfl = dfl + (weight[:, None] * (low + high).view(-1, 4)).sum()
    total = weight_sum.clamp(min=1)
    return {
        "loss_qfl": qfl / num_positive,
        "loss_bbox": 2 * bbox / total,
        "loss_dfl": 0.25 * dfl / (4 * total),
    }


def assign_atss(
    priors: Tensor,
    gt_boxes: Tensor,
    gt_classes: Tensor,
    num_classes: int,
    *,
    topk: int = 9,
    anchor_scale: float = 5.0,
) -> tuple[Tensor, Tensor]:
    """Labels (P,) and matched ground truth (P,), -1 for none, of one image by ATSS."""
    labels = torch.full((len(priors),), num_classes)
    owner = torch.full((len(priors),), -1)
    if len(gt_boxes) == 0:
        return labels, owner
    half = priors[:, 2:] * anchor_scale / 2
    iou = iou_matrix(torch.cat([priors[:, :2] - half, priors[:, :2] + half], 1), gt_boxes)
    middle = (gt_boxes[:, :2] + gt_boxes[:, 2:]) / 2
    distance = (priors[:, None, :2] - middle[None]).pow(2).sum(2).sqrt()  # (P, G)
    candidates = []
    for stride in priors[:, 2].unique():
        level = (priors[:, 2] == stride).nonzero().flatten()
        nearest = distance[level].topk(min(topk, len(level)), dim=0, largest=False).indices
        candidates.append(level[nearest])
    best = torch.full_like(iou, -1.0)
    for j, rows in enumerate(torch.cat(candidates).T):
        threshold = iou[rows, j].mean() + iou[rows, j].std()
        x, y = priors[rows, 0], priors[rows, 1]
        left, top, right, bottom = gt_boxes[j]
        sides = torch.stack([x - left, y - top, right - x, bottom - y])
        chosen = rows[(iou[rows, j] >= threshold) & (sides.amin(0) > 0.01)]
        best[chosen, j] = iou[chosen, j]
    overlap, index = best.max(1)
    positive = overlap >= 0
    owner[positive] = index[positive]
    labels[positive] = gt_classes[index[positive]]
    return labels, owner
