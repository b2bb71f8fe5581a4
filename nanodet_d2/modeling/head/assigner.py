"""What assigners are given and give, and dynamic soft label assignment (RTMDet's ancestor in
NanoDet-Plus; cf. SimOTA in YOLOX, 2021).

Letters: N images, G ground truths (padded), K ignored boxes (padded), P priors, C classes,
S slots for positive priors. Nothing here waits for the device, and no shape depends on values.
Boxes are XYXY in pixels of the network input.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .losses import background_focal_loss, focal_correction, pairwise_iof, pairwise_iou


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
    slots: Tensor  # (N, S) different priors, all positive ones among them; S follows from shapes


@runtime_checkable
class Assigner(Protocol):
    """Matches priors to ground truths; any head takes any of them."""

    def check_levels(self, strides: Sequence[int]) -> None:
        """Raise ``ValueError`` if it cannot work on levels of these strides, in their order."""

    def __call__(
        self,
        logits: Tensor,
        boxes: Tensor,
        priors: Tensor,
        truth: GroundTruth,
        background: Tensor | None = None,
    ) -> Assignment:
        """Assign, from the guiding branch's predictions or without them.

        Args:
            logits: (N, P, C)
            boxes: (N, P, 4)
            priors: (P, 3)
            truth: ground truth of the batch.
            background: (N, P) the ``background_focal_loss`` of the logits, where it is known.
        """


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

    def check_levels(self, strides: Sequence[int]) -> None:
        """Any do: it knows of no levels."""

    @torch.no_grad()
    def __call__(
        self,
        logits: Tensor,
        boxes: Tensor,
        priors: Tensor,
        truth: GroundTruth,
        background: Tensor | None = None,
    ) -> Assignment:
        """See ``Assigner``; every computation is float32."""
        if background is None:
            background = background_focal_loss(logits)
        valid = truth.valid.unsqueeze(-1)  # (N, G, 1)
        candidate = (centers_inside(priors[:, :2], truth.boxes) & valid).any(dim=1, keepdim=True)
        usable = candidate & valid  # (N, G, P)
        iou = pairwise_iou(truth.boxes, boxes).mul_(usable)  # (N, G, P)
        cost = class_cost(logits, background, truth.classes, iou)
        cost.sub_((iou + 1e-7).log_(), alpha=self.iou_factor).masked_fill_(~usable, float("inf"))

        matched = self._match(cost, iou).logical_and_(usable)  # (N, G, P)
        times_matched = matched.sum(dim=1, keepdim=True)  # (N, 1, P)
        positive = times_matched.squeeze(1) > 0
        # The only ground truth that took the prior or, of several, the cheapest of *all*.
        eligible = matched.logical_or_(times_matched > 1)
        owner = cost.masked_fill_(~eligible, float("inf")).min(dim=1).indices  # (N, P)
        labels = truth.classes.gather(1, owner)
        scores = iou.gather(1, owner.unsqueeze(1)).squeeze(1)
        num_slots = min(self.topk * truth.boxes.shape[1], len(priors))
        return Assignment(
            labels=torch.where(positive, labels, logits.shape[-1]),
            scores=torch.where(positive, scores, 0.0),
            weights=self._weights(boxes, positive, truth),
            boxes=truth.boxes.gather(1, owner.unsqueeze(-1).expand(-1, -1, 4)),
            slots=positive.float().topk(num_slots, sorted=False).indices,
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
    x, y = centers.unbind(dim=-1)
    left, top, right, bottom = boxes.unsqueeze(-1).unbind(dim=-2)
    return (x > left).logical_and_(x < right).logical_and_(y > top).logical_and_(y < bottom)


def class_cost(logits: Tensor, background: Tensor, classes: Tensor, iou: Tensor) -> Tensor:
    """Quality focal loss that a prior would have with a ground truth, for all of their pairs.

    Only the term of the ground truth's own class depends on the pair, so it is a sum per prior
    and a correction; (N, G, P, C) is never made.

    Args:
        logits: (N, P, C)
        background: (N, P) their ``background_focal_loss``.
        classes: (N, G)
        iou: (N, G, P), the quality of the own class.

    Returns:
        (N, G, P)
    """
    index = classes.unsqueeze(-1).expand(-1, -1, logits.shape[1])  # (N, G, P)
    own = logits.transpose(1, 2).gather(1, index)
    return focal_correction(own, iou).add_(background.unsqueeze(1))
