"""The check of quantised files, which compute something else than PyTorch: what is clear to see is
still found, and nothing else is. How accurate they are is a matter of AP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from detectron2.structures import Instances, pairwise_iou

from .expected import Expected
from .running import Difference, Mismatch, run_beside

CLEAR = 0.4  # score of a detection that is clear to see…
FEWEST = 10  # …or that of the best so many, where there are fewer: else nothing is compared
SHARE = 0.25  # of them, that may be lost, and that may be added
SAME = 0.5  # IoU from which on two boxes are of one object
LOST, ADDED = "clear detections lost", "clear detections added"


def clear_score(reference: Expected) -> float:
    """The score from which on a detection is clear to see.

    Raises:
        ValueError: if there are too few detections in the images to check a file by.
    """
    scores = np.sort(np.concatenate([x.scores.numpy() for x in reference.detections]))
    if len(scores) < FEWEST:
        raise ValueError(
            f"PyTorch has {len(scores)} detections in the {len(reference.images)} pictures that "
            f"INT8 would be verified with; allowed: {FEWEST} or more. Give others with --images"
        )
    return min(CLEAR, float(scores[-FEWEST]))


def verify_int8(path: Path, references: Sequence[Expected]) -> list[Difference]:
    """Check that a quantised file finds what is clear to see, and finds nothing clear in addition.

    Args:
        references: as of ``run_beside``.

    Returns:
        how many of the clear detections are lost, and how many are added.

    Raises:
        Mismatch: if either is more than is allowed, or an output is not finite.
        ValueError: as ``clear_score``.
    """
    clear = clear_score(references[0])
    count, alone = 0, {LOST: 0, ADDED: 0}
    for ran in run_beside(path, references):
        for name, values in ran.outputs.items():
            if not np.isfinite(values).all():
                raise Mismatch(f"{path}: output {name!r} of {ran.where} is not finite")
        own = ran.reference.metadata.score_threshold
        expected, found = ran.reference.detections[ran.index], ran.found[ran.found.scores > own]
        count += int((expected.scores >= clear).sum())
        alone[LOST] += _alone(expected[expected.scores >= clear], found)
        alone[ADDED] += _alone(found[found.scores >= clear], expected)
    for name, value in alone.items():
        if value > SHARE * count:
            raise Mismatch(
                f"{path}: output 'detections': {value} {name} of {count}, those of PyTorch with a "
                f"score of {clear:.2f} or more; allowed: {SHARE * count:g}"
            )
    return [Difference(name, value, SHARE * count, count) for name, value in alone.items()]


def _alone(some: Instances, others: Instances) -> int:
    """Number of detections in ``some`` without one in ``others`` of the same class and place."""
    overlap = pairwise_iou(some.pred_boxes, others.pred_boxes)
    same = (some.pred_classes[:, None] == others.pred_classes) & (overlap > SAME)
    return int((~same.any(dim=1)).sum())
