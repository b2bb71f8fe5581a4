"""Checks of exported files: each is run by its own runtime and compared with PyTorch.

NMS makes another box of a rounding, and of that box others. So the tensors of a file are compared
with PyTorch's, and its detections with those that PyTorch finds in the file's tensors. Only where
a file hands out nothing but detections (end2end) they are compared with PyTorch's alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from detectron2.structures import Instances, pairwise_iou

from nanodet_d2.data.shapes import draw_picture
from nanodet_d2.runtime import Detector
from nanodet_d2.runtime.metadata import ExportMetadata

from .expected import Expected

NUM_DRAWN = 4  # pictures that are drawn where none are given


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """Largest allowed differences.

    Attributes:
        scores: of class scores in [0, 1].
        box_logits: of the box distributions, whose values are around ten.
        boxes: pixels of the network's input.
    """

    scores: float
    box_logits: float
    boxes: float


FP32 = Tolerance(scores=2e-4, box_logits=2e-3, boxes=0.05)
FP16 = Tolerance(scores=2e-2, box_logits=1.0, boxes=2.0)

END2END_SHARE = 0.02  # of an image's detections that NMS may exchange by its roundings
CONFIDENT = 0.4  # score of a detection that INT8 has to find as well…
INT8_LOSS = 0.25  # …but for this share of them


class Mismatch(ValueError):
    """An exported file does not compute what PyTorch does."""

    is_finding = True  # and no wrong request, for the command's exit code


@dataclasses.dataclass(frozen=True)
class Difference:
    """The largest difference of an output over all images, and what is allowed."""

    output: str
    value: float
    allowed: float


def verify(path: Path, reference: Expected, tolerance: Tolerance) -> list[Difference]:
    """Run a file by its own runtime and compare it with PyTorch.

    Returns:
        the differences of all outputs, raw tensors first; all are allowed.

    Raises:
        Mismatch: naming the first output that differs by more than is allowed.
    """
    detector = Detector(path)
    worst: dict[str, Difference] = {}
    for i, image in enumerate(reference.images):
        for x in _differences(detector, image, reference, i, tolerance):
            # not x <= y instead of x > y, because a NaN is a difference, too
            if not x.value <= x.allowed:
                raise Mismatch(
                    f"{path}: output {x.output!r} of image {i} differs from PyTorch by "
                    f"{x.value:.3g}; allowed: {x.allowed:g}"
                )
            if x.output not in worst or x.value > worst[x.output].value:
                worst[x.output] = x
    return list(worst.values())


def verify_int8(path: Path, reference: Expected) -> list[Difference]:
    """Check that a quantised file finds what is clear to see; its accuracy is a matter of AP.

    Raises:
        Mismatch: if it loses more of PyTorch's confident detections than is allowed.
    """
    detector = Detector(path)
    confident, lost = 0, 0
    for image, expected in zip(reference.images, reference.detections):
        expected = expected[expected.scores > CONFIDENT]
        found = detector(image).to_instances()
        overlap = pairwise_iou(expected.pred_boxes, found.pred_boxes)
        same = expected.pred_classes[:, None] == found.pred_classes
        confident += len(expected)
        lost += int((~(same & (overlap > 0.5)).any(dim=1)).sum())
    share = lost / max(confident, 1)
    name = f"lost of {confident} confident detections"
    if share > INT8_LOSS:
        raise Mismatch(
            f"{path}: output 'detections': {lost} {name}; allowed: a share of {INT8_LOSS}"
        )
    return [Difference(name, share, INT8_LOSS)]


def _differences(
    detector: Detector,
    image: np.ndarray,
    reference: Expected,
    index: int,
    tolerance: Tolerance,
) -> list[Difference]:
    if detector.metadata.kind == "end2end":
        expected = reference.detections[index]
        found = _detection_difference(
            detector(image).to_instances(), expected, reference, index, tolerance
        )
        return [dataclasses.replace(found, allowed=int(END2END_SHARE * len(expected)))]
    outputs = detector.raw(image)
    tensors = _tensor_differences(outputs, detector.metadata, reference, index, tolerance)
    if not all(x.value <= x.allowed for x in tensors):
        return tensors
    expected = reference.detections_in(outputs, image.shape[:2])
    return [
        *tensors,
        _detection_difference(detector(image).to_instances(), expected, reference, index, FP32),
    ]


def _tensor_differences(
    outputs: Mapping[str, np.ndarray],
    metadata: ExportMetadata,
    reference: Expected,
    index: int,
    tolerance: Tolerance,
) -> list[Difference]:
    raw = reference.raw[index]
    classes = len(metadata.class_names)
    if metadata.kind == "decoded":
        pairs = {
            "boxes": (outputs["boxes"][0], reference.boxes[index], tolerance.boxes),
            "scores": (outputs["scores"][0], raw[:, :classes], tolerance.scores),
        }
    else:
        pairs = {}
        found = outputs["output"][0]
        for name, rows, columns in _parts(metadata, classes):
            allowed = tolerance.scores if columns.start is None else tolerance.box_logits
            a = found[rows, columns] if found.shape == raw.shape else found
            pairs[name] = (a, raw[rows, columns], allowed)
    return [Difference(name, _largest(a, b), allowed) for name, (a, b, allowed) in pairs.items()]


def _parts(metadata: ExportMetadata, classes: int) -> list[tuple[str, slice, slice]]:
    """Name, priors and columns of what a raw output consists of, as the file names it."""
    scores, logits = slice(None, classes), slice(classes, None)
    if len(metadata.outputs) == 1:
        (name,) = metadata.outputs
        return [(f"{name}: class scores", slice(None), scores),
                (f"{name}: box logits", slice(None), logits)]  # fmt: skip
    counts = [
        -(-metadata.input.height // stride) * -(-metadata.input.width // stride)
        for stride in metadata.strides
    ]
    ends = np.cumsum(counts).tolist()
    rows = [slice(end - count, end) for end, count in zip(ends, counts)]
    columns = [scores] * len(rows) + [logits] * len(rows)
    return list(zip(metadata.outputs, rows + rows, columns))


def _largest(found: np.ndarray, expected: np.ndarray) -> float:
    if found.shape != expected.shape:
        return float("inf")
    return float(np.abs(found - expected).max())


def _detection_difference(
    found: Instances,
    expected: Instances,
    reference: Expected,
    index: int,
    tolerance: Tolerance,
) -> Difference:
    """How many detections only one side has."""
    x = reference.metadata
    height, width = expected.image_size
    pixels = tolerance.boxes * max(height / x.input.height, width / x.input.width)
    limits = dict(
        scores=tolerance.scores,
        pixels=pixels,
        lowest=reference.lowest[index],
        nms_threshold=x.nms_threshold,
    )
    count = _alone(expected, found, **limits) + _alone(found, expected, **limits)
    return Difference("detections", count, 0)


def _alone(
    some: Instances,
    others: Instances,
    *,
    scores: float,
    pixels: float,
    lowest: float,
    nms_threshold: float,
) -> int:
    """Number of detections in ``some`` that ``others`` lacks, and should not.

    A rounding may move a score over the threshold or out of the best, or let another box of the
    same object win in NMS: those are not counted.
    """
    if len(some) == 0:
        return 0
    near = some.scores <= lowest + scores
    if len(others) == 0:
        return int((~near).sum())
    same = some.pred_classes[:, None] == others.pred_classes
    gaps = (some.pred_boxes.tensor[:, None] - others.pred_boxes.tensor).abs().amax(dim=2)
    twins = same & (gaps <= pixels) & ((some.scores[:, None] - others.scores).abs() <= scores)
    overlap = pairwise_iou(some.pred_boxes, others.pred_boxes)
    rivals = same & (overlap > nms_threshold - 0.05)
    return int((~(twins | rivals).any(dim=1) & ~near).sum())


def drawn_images(height: int, width: int) -> list[np.ndarray]:
    """Pictures to verify with where none are given: shapes among clutter, of about that size."""
    size = max(height, width) * 3 // 2  # to be resized as photographs are
    return [draw_picture(0, "val", i, size)[0] for i in range(NUM_DRAWN)]
