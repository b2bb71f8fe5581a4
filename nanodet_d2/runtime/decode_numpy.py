"""Raw output to detections in NumPy alone: the file to port to a device.

It needs five facts, all of them in the json beside an exported file: ``strides``, ``reg_max``,
``prior_offset``, ``input.height`` and ``input.width``; whether a port does the same, ``nanodet-d2
check`` tells. The steps:

1. Priors: level by level, finest first, each of ``ceil(H / stride) x ceil(W / stride)`` cells, row
   by row. The prior of column i and row j lies at pixel ``((i + prior_offset) * stride, (j +
   prior_offset) * stride)``. NanoDet-Plus has no offset, what was before it half a cell.
2. A row of the raw output has C class scores in [0, 1], then 4 x (reg_max + 1) logits: of the
   distances to the left, top, right and lower side. A distance is the mean of 0…reg_max, weighted
   by the softmax of its logits, times the stride (Li et al. 2020, "Generalized Focal Loss").
3. Every (prior, class) pair whose score is above the threshold is a candidate. Best first, of equal
   ones the first in order of priors and classes, each is kept that overlaps no better *kept* one of
   its class by more than the IoU threshold; one that is not kept suppresses nothing. It ends when
   as many are kept, of all classes together, as are wanted. An empty box overlaps nothing; it
   counts among those, and is dropped afterwards.
4. Only where ``nms`` is "voting" (after the box voting of Gidaris and Komodakis 2015, "Object
   detection via a multi-region and semantic segmentation-aware CNN model"): a candidate that was
   not kept belongs to the best kept box of its class that overlaps it by more than the IoU
   threshold. Where as many were kept as are wanted, those that come after the last kept one belong
   to none, as NMS ended before them. A kept box becomes the mean of itself and of its own
   candidates whose IoU with it is above ``vote_threshold``, all as they were before, weighted by
   their scores to the power ``vote_power``. (Divided by the kept box's score first, which changes
   no mean, its own weight is 1.) Its score, class and place in the order stay.
5. Boxes are pixels of the network's input. Times ``image size / input size`` they are pixels of the
   image, which was stretched. (One that was fitted has one factor, and a shift of part of a pixel.)

Letters: P priors, C classes, R reg_max, K detections. Boxes are XYXY.
"""

from __future__ import annotations

import numpy as np


def make_priors(
    height: int, width: int, strides: tuple[int, ...], offset: float = 0.0
) -> np.ndarray:
    """(P, 3) float32 ``[x, y, stride]`` for an input of (height, width) pixels."""
    levels = []
    for stride in strides:
        cells = np.mgrid[0 : -(-height // stride), 0 : -(-width // stride)]
        y, x = (cells + offset) * stride
        levels.append(np.stack([x.ravel(), y.ravel(), np.full(x.size, stride)], axis=1))
    return np.concatenate(levels).astype(np.float32)


def decode_boxes(box_logits: np.ndarray, priors: np.ndarray, height: int, width: int) -> np.ndarray:
    """Boxes (P, 4), clipped to the input, of logits (P, 4 * (R + 1)) and priors (P, 3)."""
    sides = box_logits.reshape(-1, 4, box_logits.shape[1] // 4).astype(np.float32)
    weights = np.exp(sides - sides.max(axis=2, keepdims=True))
    bins = np.arange(sides.shape[2], dtype=np.float32)
    distances = weights @ bins / weights.sum(axis=2) * priors[:, 2:]  # left, top, right, lower
    upper_left, lower_right = priors[:, :2] - distances[:, :2], priors[:, :2] + distances[:, 2:]
    corners = np.concatenate([upper_left, lower_right], axis=1)
    return np.clip(corners, 0, np.array([width, height, width, height], dtype=np.float32))


def iou_with(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Intersection over union (K,) of a box (4,) with boxes (K, 4)."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    overlap = sides.clip(min=0).prod(axis=1)
    union = (box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) - overlap
    return overlap / np.maximum(union, 1e-9)


def select(
    scores: np.ndarray,
    boxes: np.ndarray,
    score_threshold: float,
    nms_threshold: float,
    max_detections: int,
    vote_threshold: float | None = None,
    vote_power: float = 1.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Class-wise NMS of scores (P, C) and boxes (P, 4); plain, or with a threshold by voting.

    Returns:
        boxes (K, 4), scores (K,) and classes (K,) int64, best first.
    """
    boxes, scores, classes = candidates(scores, boxes, score_threshold)
    kept = suppress(boxes, classes, nms_threshold, max_detections)
    found = boxes[kept]
    if vote_threshold is not None:
        is_full = len(kept) == max_detections
        limits = (nms_threshold, vote_threshold, vote_power)
        found = vote(boxes, scores, classes, kept, *limits, is_full)
    return found, scores[kept], classes[kept]


def candidates(
    scores: np.ndarray, boxes: np.ndarray, score_threshold: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What NMS chooses from: boxes (K, 4), scores (K,) and classes (K,) int64, best first."""
    priors, classes = np.nonzero(scores > score_threshold)
    scores = scores[priors, classes]
    order = np.argsort(-scores, kind="stable")
    return boxes[priors[order]], scores[order], classes[order]


def suppress(
    boxes: np.ndarray, classes: np.ndarray, nms_threshold: float, max_detections: int
) -> list[int]:
    """Indices of what NMS keeps of boxes (K, 4) with classes (K,), which come best first."""
    kept: list[int] = []
    left: np.ndarray = np.arange(len(boxes))
    while len(left) and len(kept) < max_detections:
        best, left = left[0], left[1:]
        kept.append(best)
        rival = classes[left] == classes[best]
        rival[rival] = iou_with(boxes[best], boxes[left[rival]]) > nms_threshold
        left = left[~rival]
    return kept


def vote(
    boxes: np.ndarray,
    scores: np.ndarray,
    classes: np.ndarray,
    kept: list[int],
    nms_threshold: float,
    vote_threshold: float,
    vote_power: float,
    is_full: bool,
) -> np.ndarray:
    """Boxes that NMS kept, moved by those that they suppressed.

    Args:
        boxes, scores, classes: (K, 4), (K,) and (K,) of all candidates, best first.
        kept: indices of what :func:`suppress` kept of them.
        is_full: whether as many are kept as are wanted.

    Returns:
        (len(kept), 4) float32. The sums are float64: what nobody votes for stays as it is.
    """
    end = kept[-1] if is_full else len(boxes)
    free = np.arange(len(boxes)) < end
    free[kept] = False
    moved = boxes[kept].astype(np.float32)
    for i, best in enumerate(kept):
        own = np.flatnonzero(free & (classes == classes[best]))
        overlap = iou_with(boxes[best], boxes[own])
        free[own[overlap > nms_threshold]] = False  # they belong to this one
        voters = own[(overlap > nms_threshold) & (overlap > vote_threshold)]
        some = np.concatenate([[best], voters])
        weights = (scores[some].astype(np.float64) / scores[best]) ** vote_power
        moved[i] = weights @ boxes[some].astype(np.float64) / weights.sum()
    return moved


def detect(
    raw: np.ndarray,
    strides: tuple[int, ...],
    reg_max: int,
    height: int,
    width: int,
    score_threshold: float,
    nms_threshold: float,
    max_detections: int,
    vote_threshold: float | None = None,
    prior_offset: float = 0.0,
    vote_power: float = 1.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Detections of one raw output (P, C + 4 * (R + 1)), in pixels of the network's input."""
    num_classes = raw.shape[1] - 4 * (reg_max + 1)
    # Most priors have no candidate, and their boxes need no decoding.
    some = raw[:, :num_classes].max(axis=1) > score_threshold
    raw, priors = raw[some], make_priors(height, width, strides, prior_offset)[some]
    boxes = decode_boxes(raw[:, num_classes:], priors, height, width)
    limits = (score_threshold, nms_threshold, max_detections, vote_threshold, vote_power)
    return select(raw[:, :num_classes], boxes, *limits)
