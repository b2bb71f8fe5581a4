"""Checks of exported files: each is run by its own runtime and compared with PyTorch.

NMS makes another box of a rounding, and of that box others. So the tensors of a file are compared
with PyTorch's, and its detections with those that PyTorch finds in the file's tensors. Only where
a file hands out nothing but detections (end2end) they are compared with PyTorch's alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from detectron2.structures import Instances, pairwise_iou

from nanodet_d2.runtime.metadata import ExportMetadata

from .expected import Expected
from .running import Difference, Mismatch, Ran, run_beside

DETECTIONS = "detections"  # the name of their differences


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
SAME_TENSORS = Tolerance(scores=1e-6, box_logits=0.0, boxes=0.05)  # two decoders of one output

END2END_SHARE = 0.02  # of an image's detections that NMS may exchange by its roundings


def verify(path: Path, references: Sequence[Expected], tolerance: Tolerance) -> list[Difference]:
    """Run a file by its own runtime and compare it with PyTorch.

    Args:
        references: as of ``run_beside``.

    Returns:
        the differences of all outputs, raw tensors first; all are allowed.

    Raises:
        Mismatch: naming the first output that differs by more than is allowed.
    """
    worst: dict[str, Difference] = {}
    for ran in run_beside(path, references):
        for x in _differences(ran, tolerance):
            # not x <= y instead of x > y, because a NaN is a difference, too
            if not x.value <= x.allowed:
                raise Mismatch(
                    f"{path}: output {x.output!r} of {ran.where} differs from PyTorch by "
                    f"{x.value:.3g}; allowed: {x.allowed:g}"
                )
            worst[x.output] = _worse(worst.get(x.output), x)
    return list(worst.values())


def _worse(before: Difference | None, x: Difference) -> Difference:
    """The larger one of an output's differences, of as many detections as both compared."""
    if before is None:
        return x
    larger = x if x.value > before.value else before
    if x.compared is None or before.compared is None:
        return larger
    return dataclasses.replace(larger, compared=x.compared + before.compared)


def _differences(ran: Ran, tolerance: Tolerance) -> list[Difference]:
    reference, image = ran.reference, ran.reference.images[ran.index]
    if ran.metadata.kind == "end2end":
        expected, lowest = reference.detections[ran.index], reference.lowest[ran.index]
        found = _detection_difference(ran, expected, lowest, tolerance)
        return [dataclasses.replace(found, allowed=int(END2END_SHARE * len(expected)))]
    tensors = _tensor_differences(ran.outputs, ran.metadata, reference, ran.index, tolerance)
    if not all(x.value <= x.allowed for x in tensors):
        return tensors
    expected, lowest = reference.detections_in(ran.outputs, image.shape[:2])
    return [*tensors, _detection_difference(ran, expected, lowest, SAME_TENSORS)]


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
    ran: Ran, expected: Instances, lowest: float, tolerance: Tolerance
) -> Difference:
    """How many detections only one side has; ``lowest`` is the score that it takes to be one."""
    x = ran.reference.metadata
    height, width = expected.image_size
    limits = dict(
        scores=tolerance.scores,
        pixels=tolerance.boxes * max(height / x.input.height, width / x.input.width),
        lowest=lowest,
        nms_threshold=x.nms_threshold,
    )
    count = _alone(expected, ran.found, **limits) + _alone(ran.found, expected, **limits)
    compared = int((expected.scores > lowest + tolerance.scores).sum())
    return Difference(DETECTIONS, count, 0, compared)


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
