"""From class scores and boxes to the detections of each image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
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
) -> list[Instances]:
    """Multi-label, class-wise NMS.

    Every (prior, class) pair above ``score_thresh`` is a candidate; none is cut before NMS.
    Candidates are gathered for the whole batch at once; NMS, whose time grows with the square of
    their number, runs image by image.

    Args:
        scores: (N, P, C) in [0, 1].
        boxes: (N, P, 4) XYXY, pixels of the network input.
        image_sizes: (height, width) of each image in the network input.

    Returns:
        per image ``Instances`` with ``pred_boxes``, ``scores`` and ``pred_classes``, best first.
    """
    images, priors, classes = (scores > score_thresh).nonzero(as_tuple=True)  # image by image
    counts = images.bincount(minlength=len(scores)).tolist()
    candidates = boxes[images, priors], scores[images, priors, classes], classes
    nms = batched_nms if scores.shape[2] <= OFFSET_CLASSES else _exact_batched_nms
    results = []
    for size, b, s, c in zip(image_sizes, *(x.split(counts) for x in candidates)):
        keep = nms(b, s, c, nms_thresh)[:max_detections]
        found = Instances(size, pred_boxes=Boxes(b[keep]), scores=s[keep], pred_classes=c[keep])
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


def _exact_batched_nms(boxes: Tensor, scores: Tensor, classes: Tensor, threshold: float) -> Tensor:
    """As ``batched_nms``, for any number of classes.

    NMS tells classes apart by moving the boxes of class c by c times the largest coordinate. The
    3,000th class of a 416 px input lies at 1.2 million, where float32 counts in eighths of a pixel;
    float64 leaves the boxes as they are. detectron2's own function would cast to float32.
    """
    return torchvision.ops.batched_nms(boxes.double(), scores.double(), classes, threshold)
