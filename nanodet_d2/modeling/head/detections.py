"""From class scores and boxes to the detections of an image."""

from __future__ import annotations

import torch
from detectron2.layers import batched_nms
from detectron2.structures import Boxes, Instances
from torch import Tensor


def select_detections(
    scores: Tensor,
    boxes: Tensor,
    image_size: tuple[int, int],
    *,
    score_thresh: float,
    nms_thresh: float,
    max_detections: int,
) -> Instances:
    """Multi-label, class-wise NMS of one image.

    Every (prior, class) pair above ``score_thresh`` is a candidate; none is cut before NMS.

    Args:
        scores: (P, C) in [0, 1].
        boxes: (P, 4) XYXY, pixels of the network input.
        image_size: (height, width) of the image in the network input.

    Returns:
        ``Instances`` with ``pred_boxes``, ``scores`` and ``pred_classes``, best first.
    """
    priors, classes = (scores > score_thresh).nonzero(as_tuple=True)
    candidate_boxes, candidate_scores = boxes[priors], scores[priors, classes]
    keep = batched_nms(candidate_boxes, candidate_scores, classes, nms_thresh)[:max_detections]
    return Instances(
        image_size,
        pred_boxes=Boxes(candidate_boxes[keep]),
        scores=candidate_scores[keep],
        pred_classes=classes[keep],
    )


def clip_boxes(boxes: Tensor, height: int, width: int) -> Tensor:
    """Clip XYXY boxes (…, 4) to an area of (height, width) pixels."""
    limit = torch.tensor([width, height, width, height], device=boxes.device, dtype=boxes.dtype)
    return boxes.clamp(min=0).minimum(limit)
