"""From class scores and boxes to the detections of each image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torchvision
from detectron2.layers import batched_nms
from detectron2.structures import Boxes, Instances
from torch import Tensor

# Up to so many classes float32 holds what class-wise NMS adds to the coordinates.
OFFSET_CLASSES = 128


def select_detections(
    scores: Tensor,
    boxes: Tensor,
    image_sizes: Sequence[tuple[int, int]],
    *,
    score_thresh: float,
    nms_thresh: float,
    max_detections: int,
    nms: str = "plain",
    vote_thresh: float = 0.65,
    vote_power: float = 8.0,
) -> list[Instances]:
    """Multi-label, class-wise NMS.

    Every (prior, class) pair above ``score_thresh`` is a candidate; none is cut before NMS.
    Candidates are gathered for the whole batch at once; NMS, whose time grows with the square of
    their number, runs image by image.

    Args:
        scores: (N, P, C) in [0, 1].
        boxes: (N, P, 4) XYXY, pixels of the network input.
        image_sizes: (height, width) of each image in the network input.
        nms: "plain", or "voting": a box that is kept becomes the mean of itself and of those that
            it suppressed with an IoU above ``vote_thresh``, weighted by their scores to the power
            ``vote_power``; the rule stands in ``nanodet_d2/runtime/decode_numpy.py``.

    Returns:
        per image ``Instances`` with ``pred_boxes``, ``scores`` and ``pred_classes``, best first.
    """
    images, priors, classes = (scores > score_thresh).nonzero(as_tuple=True)  # image by image
    counts = images.bincount(minlength=len(scores)).tolist()
    candidates = boxes[images, priors], scores[images, priors, classes], classes
    suppress = batched_nms if scores.shape[2] <= OFFSET_CLASSES else _exact_batched_nms
    results = []
    for size, b, s, c in zip(image_sizes, *(x.split(counts) for x in candidates)):
        if nms == "voting":
            order = s.argsort(descending=True, stable=True)
            b, s, c = b[order], s[order], c[order]
        keep = suppress(b, s, c, nms_thresh)
        if nms == "voting":
            keep = keep.sort().values[:max_detections]  # of equal scores the first comes first
            is_full = len(keep) == max_detections
            kept_boxes = _vote(b, s, c, keep, nms_thresh, vote_thresh, vote_power, is_full)
        else:
            keep = keep[:max_detections]
            kept_boxes = b[keep]
        found = Instances(size, pred_boxes=Boxes(kept_boxes), scores=s[keep], pred_classes=c[keep])
        results.append(found)
    return results


def unwarp(found: Instances, matrix: np.ndarray, size: tuple[int, int]) -> Instances:
    """Detections in an image as it was before it was scaled and moved.

    Args:
        found: with ``pred_boxes`` in pixels of the result.
        matrix: (3, 3) from pixels of the image to those of the result, without rotation.
        size: (height, width) of the image.
    """
    scale, shift = np.diag(matrix)[:2], matrix[:2, 2]
    boxes = found.pred_boxes.tensor
    boxes = (boxes - boxes.new_tensor(np.tile(shift, 2))) / boxes.new_tensor(np.tile(scale, 2))
    return Instances(size, **{**found.get_fields(), "pred_boxes": Boxes(boxes)})


def _vote(
    boxes: Tensor,
    scores: Tensor,
    classes: Tensor,
    keep: Tensor,
    nms_thresh: float,
    vote_thresh: float,
    vote_power: float,
    is_full: bool,
) -> Tensor:
    """Boxes (K, 4) that NMS kept, moved by those that they suppressed.

    Args:
        boxes, scores, classes: (M, 4), (M,) and (M,) of all candidates, best first.
        keep: (K,) indices of those that are kept, best first.
        is_full: whether as many are kept as are wanted: those after the last one do not count.
    """
    if len(keep) == 0:
        return boxes[keep]
    end = int(keep[-1]) if is_full else len(boxes)
    is_free = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    is_free[keep] = False
    rest = is_free[:end].nonzero().squeeze(1)
    overlap = torchvision.ops.box_iou(boxes[keep], boxes[rest])  # (K, rest)
    overlap = overlap * (classes[keep, None] == classes[rest])
    suppressed = overlap > nms_thresh
    owner = suppressed.int().argmax(dim=0)  # the first, which is the best
    votes = suppressed.any(dim=0) & (overlap.gather(0, owner[None])[0] > vote_thresh)
    owner, rest = owner[votes], rest[votes]
    kept, scores = boxes[keep].double(), scores.double()  # sums' roundings are lost in a float32
    weights = (scores[rest] / scores[keep[owner]]) ** vote_power
    total = torch.ones_like(scores[keep]).index_add(0, owner, weights)
    moved = kept.index_add(0, owner, boxes[rest].double() * weights[:, None]) / total[:, None]
    return moved.to(boxes.dtype)


def _exact_batched_nms(boxes: Tensor, scores: Tensor, classes: Tensor, threshold: float) -> Tensor:
    """As ``batched_nms``, for any number of classes.

    NMS tells classes apart by moving the boxes of class c by c times the largest coordinate. The
    3,000th class of a 416 px input lies at 1.2 million, where float32 counts in eighths of a pixel;
    float64 leaves the boxes as they are. detectron2's own function would cast to float32.
    """
    return torchvision.ops.batched_nms(boxes.double(), scores.double(), classes, threshold)
