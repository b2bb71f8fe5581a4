"""From a network's outputs to detections, fast: the same as ``decode_numpy.py``, which explains.

Letters: P priors, C classes, R reg_max, K detections. Boxes are XYXY, pixels of the input.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np

from . import decode_numpy
from .metadata import ExportMetadata

Found = tuple[np.ndarray, np.ndarray, np.ndarray]
_FIRST = 4  # candidates that NMS looks at first, for each detection that is wanted


def find(outputs: list[np.ndarray], metadata: ExportMetadata) -> Found:
    """Detections of one image in what a raw or decoded file gives for it.

    Args:
        outputs: [raw (P, C + 4 * (R + 1))], or [boxes (P, 4), scores (P, C)].

    Returns:
        boxes (K, 4), scores (K,) and classes (K,) int64, best first.
    """
    if metadata.kind == "decoded":
        boxes, scores = outputs
        priors, classes = _candidates(scores, metadata.score_threshold)
        boxes = boxes[priors]
    else:
        (raw,) = outputs
        num_classes = len(metadata.class_names)
        scores = raw[:, :num_classes]
        priors, classes = _candidates(scores, metadata.score_threshold)
        boxes = _decode(raw[:, num_classes:], priors, metadata)
    return _suppress(boxes, scores[priors, classes], classes, metadata)


def _candidates(scores: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Prior and class of each score above the threshold."""
    return np.divmod(np.flatnonzero(scores > threshold), scores.shape[1])


def _decode(box_logits: np.ndarray, priors: np.ndarray, metadata: ExportMetadata) -> np.ndarray:
    """The boxes of some priors, of which each is decoded once."""
    x = metadata.input
    once, where = np.unique(priors, return_inverse=True)
    places = _all_priors(x.height, x.width, metadata.strides)[once]
    return decode_numpy.decode_boxes(box_logits[once], places, x.height, x.width)[where]


@functools.lru_cache(maxsize=8)
def _all_priors(height: int, width: int, strides: tuple[int, ...]) -> np.ndarray:
    return decode_numpy.make_priors(height, width, strides)


def _suppress(
    boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, metadata: ExportMetadata
) -> Found:
    """Class-wise NMS of candidates by OpenCV.

    NMS never looks back: among the best candidates it keeps what it would keep of all of them. So
    those come first, and the rest only if too few are left.
    """
    limit, threshold = metadata.max_detections, metadata.nms_threshold
    order = np.argsort(-scores, kind="stable")
    boxes, scores, classes = boxes[order], scores[order], classes[order]
    sides = boxes[:, 2:] - boxes[:, :2]
    if not (sides > 0).all():  # OpenCV says that empty boxes cover each other
        kept = decode_numpy.suppress(boxes, classes, threshold, limit)
    else:
        xywh = np.concatenate([boxes[:, :2], sides], axis=1).astype(np.float64)
        # float64: a float32's bits would be lost to OpenCV's offset of the classes
        labels, count = classes.astype(np.int32), _FIRST * limit
        while True:
            parts = (x[:count] for x in (xywh, scores, labels))
            kept = cv2.dnn.NMSBoxesBatched(*parts, 0.0, threshold)
            if len(kept) >= limit or count >= len(scores):
                break
            count *= 4
    rows = np.asarray(kept, dtype=np.int64)[:limit]
    return boxes[rows], scores[rows], classes[rows]
