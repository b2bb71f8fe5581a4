"""Dynamic soft label assignment (RTMDet's ancestor in NanoDet-Plus; cf. SimOTA in YOLOX, 2021).

Letters: N images, G ground truths (padded), K ignored boxes (padded), P priors, C classes.
Boxes are XYXY in pixels of the network input.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from .losses import pairwise_iof, pairwise_iou


class GroundTruth(NamedTuple):
    """The boxes of a batch, padded to the same number per image (at least one)."""

    boxes: Tensor  # (N, G, 4)
    classes: Tensor  # (N, G), in [0, C)
    valid: Tensor  # (N, G) bool; False where padded
    ignored: Tensor  # (N, K, 4); padding has no area, so that nothing lies in it

    @classmethod
    def from_instances(
        cls, instances: Sequence[Instances], ignored: Sequence[Boxes] | None = None
    ) -> GroundTruth:
        """Batch ``gt_boxes`` and ``gt_classes`` of each image, and its ignored boxes."""
        device = instances[0].gt_boxes.device
        if ignored is None:
            ignored = [Boxes(torch.zeros(0, 4, device=device)) for _ in instances]
        return cls(
            boxes=_pad([x.gt_boxes.tensor.float() for x in instances]),
            classes=_pad([x.gt_classes for x in instances]),
            valid=_pad([torch.ones_like(x.gt_classes, dtype=torch.bool) for x in instances]),
            ignored=_pad([x.tensor.float() for x in ignored]),
        )


def _pad(per_image: list[Tensor]) -> Tensor:
    padded = pad_sequence(per_image, batch_first=True)
    if padded.shape[1] == 0:  # a batch without a single box still gets one (invalid) slot
        padded = padded.new_zeros(padded.shape[0], 1, *padded.shape[2:])
    return padded


class Assignment(NamedTuple):
    """What each prior should predict."""

    labels: Tensor  # (N, P) in [0, C]; C is background
    scores: Tensor  # (N, P) IoU of the guiding prediction with its ground truth, 0 if background
    weights: Tensor  # (N, P) 1, or 0 in an ignored region
    boxes: Tensor  # (N, P, 4) matched ground truth; undefined for background


class DynamicSoftLabelAssigner:
    """Match priors to ground truths by the cost of the guiding branch's predictions.

    Args:
        topk: how many of the best IoUs decide a ground truth's number of positives, and their
            upper limit.
        iou_factor: weight of the IoU cost beside the class cost.
        ignore_iof_thr: priors whose predicted box lies in an ignored box by more than this share
            of its area are left out of the loss; off if not positive. Positives are kept.
            (The reference crashes on this option.)

    Raises:
        ValueError: if ``topk`` is not positive.
    """

    def __init__(self, topk: int = 13, iou_factor: float = 3.0, ignore_iof_thr: float = -1.0):
        if topk < 1:
            raise ValueError(f"assigner topk {topk}; allowed: 1 or more")
        self.topk = topk
        self.iou_factor = iou_factor
        self.ignore_iof_thr = ignore_iof_thr

    @torch.no_grad()
    def __call__(
        self, logits: Tensor, boxes: Tensor, priors: Tensor, truth: GroundTruth
    ) -> Assignment:
        """Assign from the guiding branch's class logits (N, P, C) and boxes (N, P, 4).

        ``priors`` is (P, 3). Every computation is float32.
        """
        num_classes = logits.shape[-1]
        inside = centers_inside(priors[:, :2], truth.boxes) & truth.valid.unsqueeze(-1)
        usable = inside.any(dim=1, keepdim=True) & truth.valid.unsqueeze(-1)  # (N, G, P)
        iou = torch.where(usable, pairwise_iou(truth.boxes, boxes), 0.0)  # (N, G, P)
        cost = class_cost(logits, truth.classes, iou) - self.iou_factor * (iou + 1e-7).log()
        cost = cost.masked_fill(~usable, float("inf"))

        matched = self._match(cost, iou) & usable  # (N, G, P)
        positive = matched.any(dim=1)  # (N, P)
        owner = _resolve_conflicts(matched, cost).unsqueeze(1)  # (N, 1, P)
        labels = truth.classes.gather(1, owner.squeeze(1))
        scores = iou.gather(1, owner).squeeze(1)
        return Assignment(
            labels=torch.where(positive, labels, num_classes),
            scores=torch.where(positive, scores, 0.0),
            weights=self._weights(boxes, positive, truth),
            boxes=truth.boxes.gather(1, owner.squeeze(1).unsqueeze(-1).expand(-1, -1, 4)),
        )

    def _match(self, cost: Tensor, iou: Tensor) -> Tensor:
        """The cheapest k priors of each ground truth; k is the truncated sum of its best IoUs."""
        limit = min(self.topk, cost.shape[-1])
        k = iou.topk(limit, dim=-1).values.sum(dim=-1).int().clamp(min=1)  # (N, G)
        cheapest = cost.topk(limit, dim=-1, largest=False).indices  # (N, G, limit)
        taken = torch.arange(limit, device=cost.device) < k.unsqueeze(-1)
        return torch.zeros_like(cost, dtype=torch.bool).scatter_(-1, cheapest, taken)

    def _weights(self, boxes: Tensor, positive: Tensor, truth: GroundTruth) -> Tensor:
        if self.ignore_iof_thr <= 0:
            return torch.ones_like(positive, dtype=torch.float32)
        share = pairwise_iof(boxes, truth.ignored).amax(dim=-1)  # (N, P)
        return (positive | (share <= self.ignore_iof_thr)).float()


def centers_inside(centers: Tensor, boxes: Tensor) -> Tensor:
    """Whether points (P, 2) lie strictly inside boxes (N, G, 4): (N, G, P) bool."""
    low, high = boxes[..., None, :2], boxes[..., None, 2:]
    return ((centers > low) & (centers < high)).all(dim=-1)


def class_cost(logits: Tensor, classes: Tensor, iou: Tensor) -> Tensor:
    """Quality focal cost of every prior for every ground truth, summed over the classes.

    For all classes but the ground truth's own the term does not depend on the box, so it is a sum
    per prior and a correction; (N, G, P, C) is never made.

    Args:
        logits: (N, P, C)
        classes: (N, G)
        iou: (N, G, P), the soft target of the own class.

    Returns:
        (N, G, P)
    """
    sigmoid = logits.sigmoid()
    others = (F.softplus(logits) * sigmoid.square()).sum(dim=-1)  # (N, P)
    index = classes.unsqueeze(1).expand(-1, logits.shape[1], -1)  # (N, P, G)
    own = logits.gather(-1, index).transpose(1, 2)  # (N, G, P)
    own_sigmoid = own.sigmoid()
    softplus = F.softplus(own)
    correction = (softplus - own * iou) * (iou - own_sigmoid).square()
    return others.unsqueeze(1) - softplus * own_sigmoid.square() + correction


def _resolve_conflicts(matched: Tensor, cost: Tensor) -> Tensor:
    """Ground truth of each prior (N, P): the only match, or of several the cheapest of *all*."""
    contested = matched.sum(dim=1) > 1
    return torch.where(contested, cost.argmin(dim=1), matched.int().argmax(dim=1))
