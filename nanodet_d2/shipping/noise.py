"""By how much a difference in AP may be off, as it was measured on some pictures and no others.

Pictures are drawn anew from those that there are, with replacement, and both models are scored on
the same draw (the bootstrap of Efron 1979, paired).
"""

from __future__ import annotations

import contextlib
import copy
import io
from typing import Any

import numpy as np

from .choosing import SURE

DRAWS = 100


def evaluation_of(coco: Any, found: list[dict[str, Any]]) -> Any:
    """pycocotools' evaluation, of each picture and class alone.

    Args:
        coco: the ground truth, a ``pycocotools.coco.COCO``.
        found: detections as a COCO file has them, one or more.
    """
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # it prints
        evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
        params = evaluation.params
        params.areaRng, params.areaRngLbl = params.areaRng[:1], params.areaRngLbl[:1]  # all sizes
        params.maxDets = params.maxDets[-1:]
        evaluation.evaluate()
    return evaluation


def ap_on(evaluation: Any, chosen: np.ndarray) -> float:
    """AP in percent on pictures of these indices, some of which may be there several times."""
    pictures = len(evaluation.params.imgIds)
    table = np.empty(len(evaluation.evalImgs), dtype=object)
    table[:] = evaluation.evalImgs  # class by class, each picture by picture
    drawn = copy.copy(evaluation)
    drawn.evalImgs = list(table.reshape(-1, pictures)[:, chosen].ravel())
    with contextlib.redirect_stdout(io.StringIO()):
        drawn.accumulate()
    precision = drawn.eval["precision"]
    known = precision[precision > -1]  # -1: classes without an object in these pictures
    return 100 * float(known.mean()) if known.size else 0.0


def drop_noise(before: Any, after: Any, *, draws: int = DRAWS) -> float:
    """By how much the loss of AP from one evaluation to another on the same pictures may be off."""
    return SURE * drop_deviation(before, after, draws=draws)


def drop_deviation(before: Any, after: Any, *, draws: int = DRAWS) -> float:
    """The standard deviation of that loss over the draws, which estimates its standard error."""
    pictures = len(before.params.imgIds)
    rng = np.random.default_rng(0)
    chosen = [rng.integers(0, pictures, pictures) for _ in range(draws)]
    drops = [ap_on(before, some) - ap_on(after, some) for some in chosen]
    return float(np.std(drops))
