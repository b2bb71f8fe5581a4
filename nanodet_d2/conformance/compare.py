"""Is a stage of a port the same as the kit's, and if not, by how much?

Tolerances are those of rounding: a port computes in another order, and its engine may. Rows are
compared as sets, since an order among near-equal scores hangs on roundings, too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from nanodet_d2.runtime.decode_numpy import iou_with
from nanodet_d2.runtime.metadata import ExportMetadata

from .stages import ROWS, level_slices, levels, placement

GREY = 1.01  # grey levels of a tensor's values, before normalisation
STEP = 8.0  # grey levels, 255 / 32, where a position is halfway between two steps: either is right
RAW = 1e-3  # scores and box logits
PIXELS = 0.5  # of boxes, in pixels of the input or of the picture, whatever they are of
SCORE = 1e-3
IOU = 0.01  # around the threshold: NMS may decide either way


@dataclasses.dataclass(frozen=True)
class Difference:
    """Of one stage of one picture.

    Attributes:
        same: within the tolerance.
        largest, mean: of tensors in grey levels, else in the stage's own numbers; of rows between
            boxes that belong to each other, in pixels.
        where: what differs, in words.
        share: of the values, or rows, that are within the tolerance.
    """

    same: bool
    largest: float
    mean: float
    where: str
    share: float


def compare(
    stage: str,
    expected: np.ndarray,
    found: np.ndarray,
    x: ExportMetadata,
    image_size: Sequence[int],
    *,
    unit: float = 1.0,
) -> Difference:
    """Compare a port's stage with the kit's, in the forms of ``stages.py``.

    Args:
        image_size: (height, width) of the picture.
        unit: of a tensor, whose tolerances are so many times as large.
    """
    if stage in ROWS:
        return _compare_rows(stage, expected, found, x)
    gaps = np.abs(found - expected)
    if stage == "tensor":
        gaps = gaps * np.array(x.input.std)[:, None, None]
        allowed = np.broadcast_to(_allowed_grey(x, image_size) * unit, gaps.shape)
        name = " grey levels"
    else:
        allowed = np.broadcast_to(_allowed_raw(x), gaps.shape)
        name = ""
    within = gaps <= allowed
    worst = tuple(int(i) for i in np.unravel_index(np.argmax(gaps), gaps.shape))
    words = f"by up to {gaps.max():.3g}{name}, {gaps.mean():.3g} in the mean"
    place = list(worst) if stage == "tensor" else _raw_place(worst[0], worst[1], x)
    return Difference(
        same=bool(within.all()),
        largest=float(gaps.max()),
        mean=float(gaps.mean()),
        where=f"{words}, most at {place}: {found[worst]:.4g} in place of {expected[worst]:.4g}",
        share=float(within.mean()),
    )


def _allowed_grey(x: ExportMetadata, image_size: Sequence[int]) -> np.ndarray:
    """(H, W) grey levels."""
    columns, rows = (
        np.where(_halfway(out, scale, shift), STEP, 0.0)
        for out, scale, shift in zip((x.input.width, x.input.height), *placement(x, image_size))
    )
    return GREY + rows[:, None] + columns


def _halfway(out: int, scale: float, shift: float) -> np.ndarray:
    """(out,) bool: which output positions are halfway between two 1/32 pixels of the picture."""
    halves = 64 * (np.arange(out) - shift) / scale
    whole = np.rint(halves)
    return (np.abs(halves - whole) < 1e-6) & (whole % 2 == 1)


def _allowed_raw(x: ExportMetadata) -> np.ndarray:
    """(columns,) of the stage ``raw``."""
    scores = [SCORE] * len(x.class_names)
    return np.array(scores + ([PIXELS] * 4 if x.kind == "decoded" else [RAW] * 4 * (x.reg_max + 1)))


def _raw_place(prior: int, column: int, x: ExportMetadata) -> str:
    """Prior and column of ``raw`` in words."""
    level = next(i for i, some in enumerate(level_slices(x)) if prior < some.stop)
    row, cell = divmod(prior - level_slices(x)[level].start, levels(x)[level][1])
    place = f"prior {prior} (stride {x.strides[level]}, row {row}, column {cell})"
    classes = len(x.class_names)
    if column < classes:
        return f"{place}, score of {x.class_names[column]!r}"
    name = "box" if x.kind == "decoded" else "box logit"
    return f"{place}, {name} {column - classes}"


def _compare_rows(
    stage: str, expected: np.ndarray, found: np.ndarray, x: ExportMetadata
) -> Difference:
    """The gaps are of the boxes that belong to each other."""
    partner = match(expected, found)
    paired = np.flatnonzero(partner >= 0)
    gaps = np.abs(expected[paired, :4] - found[partner[paired], :4]).max(axis=1, initial=0.0)
    alone = np.setdiff1d(np.arange(len(found)), partner)
    missing = _clearly_alone(stage, expected[partner < 0], len(expected), found, x)
    extra = _clearly_alone(stage, found[alone], len(found), expected, x)
    words = f"{len(missing)} of {len(expected)} missing, {len(extra)} of {len(found)} too many"
    for name, rows in (("missing", missing), ("too many", extra)):
        if len(rows):
            words += f", the best {name} {_row_words(rows[0], x)}"
            break
    count = max(len(expected) + len(found), 1)
    return Difference(
        same=len(missing) + len(extra) == 0,
        largest=float(gaps.max(initial=0.0)),
        mean=float(gaps.mean()) if len(gaps) else 0.0,
        where=words,
        share=1 - (len(missing) + len(extra)) / count,
    )


def match(expected: np.ndarray, found: np.ndarray) -> np.ndarray:
    """For each row expected (K, 6) the index of the row found that belongs to it, -1 if none: of
    the same class, with score and box within the tolerances, the nearest that is free."""
    partner = np.full(len(expected), -1)
    order = np.argsort(-found[:, 4], kind="stable")
    scores = -found[order, 4]
    starts = np.searchsorted(scores, -expected[:, 4] - SCORE, side="left")
    ends = np.searchsorted(scores, -expected[:, 4] + SCORE, side="right")
    free = np.ones(len(found), dtype=bool)
    for i in np.flatnonzero(ends > starts):
        some = order[starts[i] : ends[i]]
        some = some[free[some] & (found[some, 5] == expected[i, 5])]
        gaps = np.abs(found[some, :4] - expected[i, :4]).max(axis=1, initial=0.0)
        if len(some) and gaps.min() <= PIXELS:
            partner[i] = some[gaps.argmin()]
            free[partner[i]] = False
    return partner


def _clearly_alone(
    stage: str, rows: np.ndarray, count: int, others: np.ndarray, x: ExportMetadata
) -> np.ndarray:
    """Those of the rows that no rounding has decided about: not those whose score is at the
    threshold; nor, after NMS, those whose score is at the end of a full list, or whose IoU with a
    better one of their class is at NMS's threshold. ``count`` rows are there in all."""
    lowest = x.score_threshold
    if stage != "candidates" and count <= len(others) == x.max_detections:
        lowest = max(lowest, others[:, 4].min())
    rows = rows[rows[:, 4] > lowest + SCORE]
    if stage == "candidates":
        return rows
    clear = [not _at_iou_threshold(row, others, x) for row in rows]
    return rows[np.array(clear, dtype=bool)]


def _at_iou_threshold(row: np.ndarray, others: np.ndarray, x: ExportMetadata) -> bool:
    better = others[(others[:, 5] == row[5]) & (others[:, 4] >= row[4] - SCORE)]
    return bool((np.abs(iou_with(row[:4], better[:, :4]) - x.nms_threshold) <= IOU).any())


def _row_words(row: np.ndarray, x: ExportMetadata) -> str:
    index = int(row[5])
    known = index == row[5] and 0 <= index < len(x.class_names)
    name = x.class_names[index] if known else f"class {row[5]:g}"
    box = ", ".join(f"{value:.1f}" for value in row[:4])
    return f"is {name} {row[4]:.3f} at ({box})"
