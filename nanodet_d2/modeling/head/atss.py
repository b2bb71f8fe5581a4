"""Adaptive training sample selection (Zhang et al. 2020, "ATSS", section 3 and algorithm 1).

Letters: N images, G ground truths (padded), P priors, K candidates. Boxes are XYXY in pixels of the
network input. All images at once; the only thing read from the device are the sizes of the levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .assigner import Assignment, GroundTruth
from .losses import aligned_iou, pairwise_iof

MIN_DISTANCE = 0.01  # pixels between a positive's centre and the sides of its ground truth
FAR = 1e8  # pixels, of priors that are only taken where there are no others


class ATSSAssigner:
    """Match priors to ground truths by where they lie, whatever the network predicts.

    Around each prior lies a square anchor. The nearest priors of each level are a ground truth's
    candidates; positive are those whose anchor overlaps it by the mean and the standard deviation
    of all candidates' overlaps at least, and whose centre lies in it. A prior's score is the IoU of
    what the guiding branch predicts there.

    Args:
        topk: candidates of each level.
        anchor_scale: side of an anchor, in strides.
        ignore_iof_thr: anchors that lie in an ignored box by more than this share of their area are
            left out of the loss, and taken as candidates only for want of others; off if not
            positive. Positives are kept.

    Raises:
        ValueError: for a ``topk`` or an ``anchor_scale`` that is not positive.
    """

    def __init__(self, topk: int = 9, anchor_scale: float = 5.0, ignore_iof_thr: float = -1.0):
        if topk < 1 or anchor_scale <= 0:
            raise ValueError(
                f"assigner topk {topk}, anchor_scale {anchor_scale}; allowed: 1 or more, above 0"
            )
        self.topk = topk
        self.anchor_scale = anchor_scale
        self.ignore_iof_thr = ignore_iof_thr

    def check_levels(self, strides: Sequence[int]) -> None:
        """Levels are told apart by the strides of their priors."""
        if any(a == b for a, b in zip(strides, strides[1:])):
            raise ValueError(
                f"ATSSAssigner with levels of strides {list(strides)}; allowed: each another than "
                "the one before. DynamicSoftLabelAssigner takes any"
            )

    @torch.no_grad()
    def __call__(
        self,
        logits: Tensor,
        boxes: Tensor,
        priors: Tensor,
        truth: GroundTruth,
        background: Tensor | None = None,
    ) -> Assignment:
        """See ``Assigner``."""
        half = priors[:, 2:] * (self.anchor_scale / 2)
        anchors = torch.cat([priors[:, :2] - half, priors[:, :2] + half], dim=1)  # (P, 4)
        ignored = self._ignored(anchors, truth)
        candidates = self._candidates(priors, truth, ignored)  # (N, G, K)
        own = truth.boxes.unsqueeze(2)  # (N, G, 1, 4)
        iou = aligned_iou(anchors[candidates], own)  # (N, G, K)
        threshold = iou.mean(dim=-1, keepdim=True) + iou.std(dim=-1, keepdim=True)
        chosen = (iou >= threshold) & _inside(priors[candidates], own) & truth.valid.unsqueeze(-1)

        # A prior that several ground truths chose goes to the one that its anchor overlaps most.
        overlaps = iou.new_full((*truth.classes.shape, len(priors)), -1.0)  # (N, G, P)
        overlaps.scatter_(-1, candidates, iou.masked_fill(~chosen, -1.0))
        best, owner = overlaps.max(dim=1)  # (N, P)
        positive = best >= 0
        matched = truth.boxes.gather(1, owner.unsqueeze(-1).expand(-1, -1, 4))
        num_slots = min(candidates.shape[1] * candidates.shape[2], len(priors))
        return Assignment(
            labels=torch.where(positive, truth.classes.gather(1, owner), logits.shape[-1]),
            scores=torch.where(positive, aligned_iou(boxes, matched), 0.0),
            weights=torch.ones_like(best) if ignored is None else (positive | ~ignored).float(),
            boxes=matched,
            slots=positive.float().topk(num_slots, sorted=False).indices,
        )

    def _ignored(self, anchors: Tensor, truth: GroundTruth) -> Tensor | None:
        """Which priors lie in an ignored box: (N, P) bool; None if that is off."""
        if self.ignore_iof_thr <= 0:
            return None
        return pairwise_iof(anchors, truth.ignored).amax(dim=-1) > self.ignore_iof_thr

    def _candidates(self, priors: Tensor, truth: GroundTruth, ignored: Tensor | None) -> Tensor:
        """Indices (N, G, K) of the priors of each level whose centres are next to a box's."""
        x, y = ((truth.boxes[..., :2] + truth.boxes[..., 2:]) / 2).unsqueeze(-2).unbind(dim=-1)
        found, start = [], 0
        for count in torch.unique_consecutive(priors[:, 2], return_counts=True)[1].tolist():
            level = slice(start, start + count)
            dx, dy = priors[level, 0] - x, priors[level, 1] - y  # (N, G, count)
            distance = dx.square_().add_(dy.square_()).sqrt_()
            if ignored is not None:
                distance.masked_fill_(ignored[:, None, level], FAR)
            nearest = distance.topk(min(self.topk, count), largest=False, sorted=False).indices
            found.append(nearest + start)
            start += count
        return torch.cat(found, dim=-1)


def _inside(priors: Tensor, boxes: Tensor) -> Tensor:
    """Whether priors (…, 3) lie in boxes (…, 4), not too near to their sides."""
    x, y, _ = priors.unbind(dim=-1)
    left, top, right, bottom = boxes.unbind(dim=-1)
    sides = torch.stack([x - left, y - top, right - x, bottom - y])
    return sides.amin(dim=0) > MIN_DISTANCE
