"""From a network's outputs to detections, fast: the same as ``decode_numpy.py``, which explains.

Letters: P priors, C classes, R reg_max, K detections. Boxes are XYXY, pixels of the input.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from . import decode_numpy
from .metadata import ExportMetadata

Found = tuple[np.ndarray, np.ndarray, np.ndarray]
_FIRST = 4  # candidates that NMS looks at first, for each detection that is wanted


def find(outputs: list[np.ndarray], metadata: ExportMetadata) -> Found:
    """Detections of one image in what a raw or decoded file gives for it.

    NMS never looks back: among the best candidates it keeps what it would keep of all of them. So
    only those are sorted and decoded, and more of them where too few are left.

    Args:
        outputs: [raw (P, C + 4 * (R + 1))], or [boxes (P, 4), scores (P, C)].

    Returns:
        boxes (K, 4), scores (K,) and classes (K,) int64, best first.
    """
    scores = (
        outputs[1] if metadata.kind == "decoded" else outputs[0][:, : len(metadata.class_names)]
    )
    # Prior and class of each score above the threshold.
    priors, classes = np.divmod(np.flatnonzero(scores > metadata.score_threshold), scores.shape[1])
    candidates = scores[priors, classes]
    count = _FIRST * metadata.max_detections
    while True:
        best = _best(candidates, count)
        boxes = _boxes(outputs, priors[best], metadata)
        kept = _suppress(boxes, candidates[best], classes[best], metadata)
        if len(kept) == metadata.max_detections or len(best) == len(candidates):
            scores, classes = candidates[best], classes[best]
            found = boxes[kept]
            if metadata.vote_above is not None:
                found = _vote(boxes, scores, classes, kept, metadata)
            return found, scores[kept], classes[kept]
        count *= 2


def _best(scores: np.ndarray, count: int) -> np.ndarray:
    """Indices of the best scores, best first, of equal ones the first: so many, and the ties."""
    if count >= len(scores):
        return np.argsort(-scores, kind="stable")
    lowest = np.partition(scores, len(scores) - count)[len(scores) - count]
    some = np.flatnonzero(scores >= lowest)
    return some[np.argsort(-scores[some], kind="stable")]


def _boxes(outputs: list[np.ndarray], priors: np.ndarray, metadata: ExportMetadata) -> np.ndarray:
    """The boxes of some priors, of which each is decoded once."""
    if metadata.kind == "decoded":
        return outputs[0][priors]
    height, width = metadata.input.height, metadata.input.width
    once, where = np.unique(priors, return_inverse=True)
    logits = outputs[0][once, len(metadata.class_names) :]
    places = _all_priors(height, width, metadata.strides, metadata.prior_offset)[once]
    return decode_numpy.decode_boxes(logits, places, height, width)[where]


@functools.lru_cache(maxsize=8)
def _all_priors(height: int, width: int, strides: tuple[int, ...], offset: float) -> np.ndarray:
    return decode_numpy.make_priors(height, width, strides, offset)


def _suppress(
    boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, metadata: ExportMetadata
) -> np.ndarray:
    """Indices of what class-wise NMS keeps of candidates, which come best first."""
    limit, threshold = metadata.max_detections, metadata.nms_threshold
    sides = boxes[:, 2:] - boxes[:, :2]
    # OpenCV says that empty boxes cover each other, and gets lost in endless ones.
    if not ((sides > 0) & (sides < np.inf)).all():
        kept: Sequence[int] = decode_numpy.suppress(boxes, classes, threshold, limit)
    elif not len(boxes):
        kept = []
    else:
        # float64: a float32's bits would be lost to OpenCV's offset of the classes
        xywh = np.concatenate([boxes[:, :2], sides], axis=1).astype(np.float64)
        xywh[:, :2] -= xywh[:, :2].min()  # the offset takes the least coordinate for 0
        nms: Any = cv2.dnn.NMSBoxesBatched  # OpenCV's types name lists; it takes arrays as well
        kept = nms(xywh, scores, classes.astype(np.int32), 0.0, threshold)
    return np.asarray(kept, dtype=np.int64)[:limit]


def _vote(
    boxes: np.ndarray,
    scores: np.ndarray,
    classes: np.ndarray,
    kept: np.ndarray,
    metadata: ExportMetadata,
) -> np.ndarray:
    """Boxes (K, 4) that were kept, moved by those that they suppressed: all pairs of a kept box and
    another candidate at once."""
    if not len(kept):
        return boxes[kept]
    is_full = len(kept) == metadata.max_detections
    is_free = np.ones(kept[-1] if is_full else len(boxes), dtype=bool)
    is_free[kept[kept < len(is_free)]] = False
    rest = np.flatnonzero(is_free)
    overlap = _iou(boxes[kept], boxes[rest]) * (classes[kept][:, None] == classes[rest])
    owner = (overlap > metadata.nms_threshold).argmax(axis=0)  # the first, which is the best
    above = max(metadata.nms_threshold, metadata.vote_threshold)
    votes = overlap[owner, np.arange(len(rest))] > above
    owner, voter = owner[votes], rest[votes]
    shares = (scores[voter].astype(np.float64) / scores[kept[owner]]) ** metadata.vote_power
    weights = np.ones(len(kept))
    sums = boxes[kept].astype(np.float64)
    np.add.at(sums, owner, boxes[voter] * shares[:, None])
    np.add.at(weights, owner, shares)
    return (sums / weights[:, None]).astype(np.float32)


def _iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union (K, M) of boxes (K, 4) and (M, 4); to the bits of ``iou_with``."""
    a, b = a.T[:, :, None], b.T[:, None]  # (4, K, 1) and (4, 1, M): four planes each
    width = np.minimum(a[2], b[2]) - np.maximum(a[0], b[0])
    height = np.minimum(a[3], b[3]) - np.maximum(a[1], b[1])
    overlap = np.maximum(width, 0) * np.maximum(height, 0)
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return overlap / np.maximum(areas - overlap, 1e-9)
