"""Mistakes on the way from the candidates to what is written down: rows (K, 6) throughout."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from nanodet_d2.runtime import decode_numpy
from nanodet_d2.runtime.metadata import FIT, STRETCH

from .. import stages
from .decoding import NOISE, OTHER_THRESHOLD
from .step import Case, Function, Step

_GRID = 20  # IoU thresholds that are tried: 0.05, 0.10, …


def _with(**changed: Any) -> Function:
    """NMS of a contract in which some fields have other values."""
    return lambda rows, case: stages.suppress(rows, dataclasses.replace(case.x, **changed))


def _across_classes(rows: np.ndarray, case: Case) -> np.ndarray:
    x, of_one_class = case.x, rows * [1, 1, 1, 1, 1, 0]
    kept = decode_numpy.suppress(rows[:, :4], of_one_class[:, 5], x.nms_threshold, x.max_detections)
    found = stages.vote(of_one_class, kept, x)
    found[:, 5] = rows[kept, 5]
    return found


def _best_without(rows: np.ndarray, case: Case) -> np.ndarray:
    return rows[: case.x.max_detections]


def _other_limit(rows: np.ndarray, case: Case) -> np.ndarray:
    return _with(max_detections=max(case.most, 1))(rows, case)


def _limit_first(rows: np.ndarray, case: Case) -> np.ndarray:
    return stages.suppress(rows[: case.x.max_detections], case.x)


def _limit_of_a_class(rows: np.ndarray, case: Case) -> np.ndarray:
    kept = np.concatenate(
        [rows[:0], *(stages.suppress(rows[rows[:, 5] == i], case.x) for i in np.unique(rows[:, 5]))]
    )
    return kept[np.argsort(-kept[:, 4], kind="stable")]


def _suppressed_by_all(rows: np.ndarray, case: Case) -> np.ndarray:
    """Kept is what no better one of its class overlaps, whether that one is kept or not."""
    kept: list[int] = []
    for i, row in enumerate(rows):
        better = rows[:i][rows[:i, 5] == row[5], :4]
        if not (decode_numpy.iou_with(row[:4], better) > case.x.nms_threshold).any():
            kept.append(i)
            if len(kept) == case.x.max_detections:
                break
    return stages.vote(rows, kept, case.x)


SUPPRESS = Step(
    lambda rows, case: stages.suppress(rows, case.x),
    {
        "NMS: across classes": _across_classes,
        "NMS: none, the best {x.max_detections} taken": _best_without,
        "NMS: none, without a limit": lambda rows, case: rows,
        "NMS: other limit, {most} in place of {x.max_detections}": _other_limit,
        "NMS: limit applied before it": _limit_first,
        "NMS: limit applied to each class": _limit_of_a_class,
        "NMS: boxes that are not kept suppress, too": _suppressed_by_all,
        "NMS: no voting": _with(nms="plain"),
        "NMS: voting, where the contract has none": _with(nms="voting"),
        "NMS: votes of all that a box suppresses, whatever their IoU": _with(vote_threshold=0.0),
        "NMS: votes not weighted by their scores": _with(vote_power=0.0),
        "NMS: votes weighted by their scores, not by a power of them": _with(vote_power=1.0),
        **{
            f"NMS: other IoU threshold, about {i / _GRID:g} in place of {{x.nms_threshold:g}}":
                _with(nms_threshold=i / _GRID)
            for i in range(1, _GRID)
        },
    },
)  # fmt: skip


def _above(rows: np.ndarray, case: Case) -> np.ndarray:
    return rows if case.lowest is None else rows[rows[:, 4] > case.lowest - NOISE]


# Of an end2end file, whose lower scores nobody sees.
THRESHOLD = Step(lambda rows, case: rows, {OTHER_THRESHOLD: _above})


def _scaled(change: Callable[[np.ndarray, Case], np.ndarray]) -> Function:
    """Another (x, y) for each corner (K, 2, 2); the rest stays."""

    def scale(rows: np.ndarray, case: Case) -> np.ndarray:
        corners = change(rows[:, :4].reshape(-1, 2, 2), case).reshape(-1, 4)
        return np.concatenate([corners, rows[:, 4:]], axis=1)

    return scale


def _to_picture(corners: np.ndarray, case: Case) -> np.ndarray:
    return (corners - case.shift) / case.scale


def _to_input(corners: np.ndarray, case: Case) -> np.ndarray:
    return corners * case.scale + case.shift


def _sides_exchanged(corners: np.ndarray, case: Case) -> np.ndarray:
    return corners / case.scale[::-1]


def _by_both_factors(corners: np.ndarray, case: Case) -> np.ndarray:
    return corners / _both_factors(case)


def _by_one_factor(corners: np.ndarray, case: Case) -> np.ndarray:
    return corners / min(_both_factors(case))


def _from_the_middle(corners: np.ndarray, case: Case) -> np.ndarray:
    """As if a border had been added on both sides."""
    factor = min(_both_factors(case))
    inner = np.array([case.size[1], case.size[0]]) * factor
    border = (np.array([case.x.input.width, case.x.input.height]) - inner) / 2
    return (corners - border) / factor


def _both_factors(case: Case) -> tuple[float, float]:
    """Of x and y, from a picture that is stretched to the input."""
    return case.x.input.width / case.size[1], case.x.input.height / case.size[0]


_FROM_THE_MIDDLE = "boxes: scaled as of a letterboxed picture (in the middle)"
_SCALES: dict[str, Function] = {
    "boxes: in input pixels, not in image pixels": _scaled(lambda corners, case: corners),
    "boxes: scaled by input over image size": _scaled(_to_input),
}


def _scale(rows: np.ndarray, case: Case) -> np.ndarray:
    """As ``stages.scale``, but what a port has not clipped before stays as it is."""
    rows = _scaled(_to_picture)(rows, case)
    return rows[(rows[:, 2] > rows[:, 0]) & (rows[:, 3] > rows[:, 1])]


SCALE = {
    STRETCH: Step(
        _scale,
        {
            **_SCALES,
            "boxes: scaled with height and width exchanged": _scaled(_sides_exchanged),
            "boxes: scaled as of a letterboxed picture (in the upper left corner)": _scaled(
                _by_one_factor
            ),
            _FROM_THE_MIDDLE: _scaled(_from_the_middle),
        },
    ),
    FIT: Step(
        _scale,
        {
            **_SCALES,
            "boxes: scaled as of a stretched picture": _scaled(_by_both_factors),
            "boxes: not moved by what the picture's rounded size leaves over": _scaled(
                _by_one_factor
            ),
            _FROM_THE_MIDDLE: _scaled(_from_the_middle),
        },
    ),
}


def again(scale: Step) -> Step:
    """The same on what is in pixels of the picture already."""

    def after_going_back(wrong: Function) -> Function:
        return lambda rows, case: wrong(_scaled(_to_input)(rows, case), case)

    wrong = {words: after_going_back(change) for words, change in scale.wrong.items()}
    return Step(lambda rows, case: rows, wrong)


def _written(columns: Callable[[np.ndarray], list[np.ndarray]]) -> Function:
    """Other numbers for a box, of ``x0, y0, x1, y1`` (4, K)."""

    def write(rows: np.ndarray, case: Case) -> np.ndarray:
        return np.column_stack([*columns(rows[:, :4].T), rows[:, 4:]])

    return write


def _class_plus(number: int) -> Function:
    return lambda rows, case: rows + np.array([0, 0, 0, 0, 0, number])


def _shares(rows: np.ndarray, case: Case) -> np.ndarray:
    height, width = case.size
    if case.stage != "boxes":
        height, width = case.x.input.height, case.x.input.width
    return rows / np.array([width, height, width, height, 1, 1])


def _in_picture(rows: np.ndarray, case: Case) -> np.ndarray:
    return rows if case.stage == "boxes" else stages.scale(rows, case.x, case.size)


WRITE = Step(
    lambda rows, case: rows,
    {
        "boxes: XYWH in place of XYXY": _written(lambda b: [b[0], b[1], b[2] - b[0], b[3] - b[1]]),
        "boxes: centre and size in place of XYXY": _written(
            lambda b: [(b[0] + b[2]) / 2, (b[1] + b[3]) / 2, b[2] - b[0], b[3] - b[1]]
        ),
        "boxes: YXYX in place of XYXY": _written(lambda b: [b[1], b[0], b[3], b[2]]),
        "boxes: XXYY in place of XYXY": _written(lambda b: [b[0], b[2], b[1], b[3]]),
        "boxes: shares of width and height (0..1), not pixels": _shares,
        "boxes: in image pixels, not in input pixels": _in_picture,
        "classes: shifted by one, one too high": _class_plus(1),
        "classes: shifted by one, one too low": _class_plus(-1),
        "scores: in percent": lambda rows, case: rows * np.array([1, 1, 1, 1, 100, 1]),
    },
)
