"""What TensorRT's plugin ``EfficientNMS_TRT`` computes, in NumPy.

After its description (TensorRT, plugin/efficientNMSPlugin/README.md) and what its CUDA code adds to
it, for float32, box_coding 0, no score_activation, not class_agnostic.
"""

from __future__ import annotations

import numpy as np

MOST_CANDIDATES = 4096


def efficient_nms(
    boxes: np.ndarray,
    scores: np.ndarray,
    *,
    score_threshold: float,
    iou_threshold: float,
    max_output_boxes: int,
    background_class: int = -1,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """NMS of boxes (N, P, 4) and scores (N, P, C).

    Returns:
        num_dets (N, 1), det_boxes (N, K, 4), det_scores (N, K), det_classes (N, K); zeros behind
        the detections.
    """
    count, most = len(boxes), max_output_boxes
    num_dets, det_classes = np.zeros((count, 1), np.int32), np.zeros((count, most), np.int32)
    det_boxes, det_scores = np.zeros((count, most, 4), np.float32), np.zeros((count, most), "f4")
    for n in range(count):
        kept: list[tuple[float, int, np.ndarray]] = []
        for p, c in _best(scores[n], score_threshold, background_class):
            rivals = (box for _, other, box in kept if other == c)
            if not any(_iou(boxes[n, p], box) >= iou_threshold for box in rivals):
                kept.append((scores[n, p, c], c, boxes[n, p]))
            if len(kept) == most:
                break
        num_dets[n] = len(kept)
        for i, (score, c, box) in enumerate(kept):
            det_scores[n, i], det_classes[n, i], det_boxes[n, i] = score, c, box
    return num_dets, det_boxes, det_scores, det_classes


def _best(scores: np.ndarray, threshold: float, background: int) -> list[tuple[int, int]]:
    pairs = [(p, c) for p, c in np.argwhere(scores >= threshold) if c != background]
    return sorted(pairs, key=lambda x: -scores[x])[:MOST_CANDIDATES]


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    overlap = np.prod(sides.clip(min=0))
    union = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - overlap
    return float(overlap / union) if overlap > 0 and union > 0 else 0.0
