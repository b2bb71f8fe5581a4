"""Mistakes on the way from the network's outputs to the candidates.

Between the steps: ``raw`` as ``stages.py`` has it; scores and boxes (P, C + 4); rows. Letters: P
priors, C classes, R reg_max.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from nanodet_d2.runtime.decode_numpy import make_priors

from .. import stages
from .step import Case, Function, Step


def _read(raw: np.ndarray, case: Case) -> np.ndarray:
    return raw


def _scores(change: Callable[[np.ndarray], np.ndarray]) -> Function:
    """Another score for each."""

    def read(raw: np.ndarray, case: Case) -> np.ndarray:
        classes = len(case.x.class_names)
        raw = raw.astype(np.float64)
        return np.concatenate([change(raw[:, :classes]), raw[:, classes:]], axis=1)

    return read


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _logit(scores: np.ndarray) -> np.ndarray:
    inside = scores.clip(1e-30, 1 - 1e-12)
    return np.log(inside) - np.log1p(-inside)


def _softmax(x: np.ndarray) -> np.ndarray:
    weights = np.exp(x - x.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def _of_levels(change: Callable[[list[np.ndarray], Case], list[np.ndarray]]) -> Function:
    """Something done to the list of the levels' parts."""

    def read(raw: np.ndarray, case: Case) -> np.ndarray:
        parts = [raw[some] for some in stages.level_slices(case.x)]
        return np.concatenate(change(parts, case))

    return read


def _order_of_levels(order: Sequence[int]) -> Function:
    def change(parts: list[np.ndarray], case: Case) -> list[np.ndarray]:
        return [parts[i] for i in order] if len(order) == len(parts) else parts

    return _of_levels(change)


def _coarsest_first(parts: list[np.ndarray], case: Case) -> list[np.ndarray]:
    return parts[::-1]


def _columns_before_rows(parts: list[np.ndarray], case: Case) -> list[np.ndarray]:
    sizes = stages.levels(case.x)
    return [
        x.reshape(*size, -1).transpose(1, 0, 2).reshape(x.shape) for x, size in zip(parts, sizes)
    ]


def _scores_in_memory(*, as_found: bool) -> Function:
    """Scores of a level in the memory of the other order of axes, (C, cells) or (cells, C): as the
    port's output has them, or as a port reads the right output."""

    def change(parts: list[np.ndarray], case: Case) -> list[np.ndarray]:
        classes = len(case.x.class_names)
        changed = []
        for part in parts:
            scores = part[:, :classes]
            if as_found:
                scores = scores.reshape(classes, -1).T
            else:
                scores = scores.T.reshape(scores.shape)
            changed.append(np.concatenate([scores, part[:, classes:]], axis=1))
        return changed

    return _of_levels(change)


def _boxes_first(raw: np.ndarray, case: Case) -> np.ndarray:
    return np.roll(raw, raw.shape[1] - len(case.x.class_names), axis=1)


def _softmax_of_sides(raw: np.ndarray, case: Case) -> np.ndarray:
    if case.x.kind == "decoded":
        return raw
    classes = len(case.x.class_names)
    sides = _softmax(raw[:, classes:].reshape(len(raw), 4, -1))
    return np.concatenate([raw[:, :classes], sides.reshape(len(raw), -1)], axis=1)


# Of three or four levels, as models have; of another number an order changes nothing.
_MIXED_LEVELS = [
    order for count in (3, 4) for order in itertools.permutations(range(count))
    if list(order) not in (list(range(count)), list(range(count))[::-1])
]  # fmt: skip

READ = Step(
    _read,
    {
        "raw: sigmoid not applied": _scores(_logit),
        "raw: sigmoid applied twice": _scores(_sigmoid),
        "raw: softmax over the classes in place of sigmoid": _scores(lambda p: _softmax(_logit(p))),
        "raw: levels in another order (coarsest first)": _of_levels(_coarsest_first),
        "raw: priors column by column, not row by row": _of_levels(_columns_before_rows),
        "raw: priors and columns exchanged": lambda raw, case: raw.T.reshape(raw.shape),
        "raw: box columns before scores": _boxes_first,
        "raw: softmax applied to the box logits": _softmax_of_sides,
        "raw: scores of a level are HWC in place of CHW": _scores_in_memory(as_found=True),
        "raw: scores of a level (CHW) read as HWC": _scores_in_memory(as_found=False),
        **{
            f"raw: levels in another order ({', '.join(map(str, order))})": _order_of_levels(order)
            for order in _MIXED_LEVELS
        },
    },
)


def _mean_bin(logits: np.ndarray) -> np.ndarray:
    return _softmax(logits) @ np.arange(logits.shape[-1])


def _decode(
    *,
    bins: Callable[[np.ndarray], np.ndarray] = _mean_bin,
    shift: float = 0.0,
    sides: Sequence[int] = (0, 1, 2, 3),
    interleaved: bool = False,
    with_stride: bool = True,
    xy: bool = True,
    finest_first: bool = True,
    clip: bool = True,
) -> Function:
    """The decoder with one thing done in another way.

    Args:
        bins: logits (P, 4, R + 1) to distances (P, 4), in strides.
        shift: of the priors from where they are, in strides.
        sides: which of the four distances is left, top, right, lower.
        interleaved: the four sides of a bin lie together, not the bins of a side.
        xy: the priors' columns are x.
        finest_first: strides belong to the levels in this order.
    """

    def decode(raw: np.ndarray, case: Case) -> np.ndarray:
        x, classes = case.x, len(case.x.class_names)
        if x.kind == "decoded":
            return raw
        logits = raw[:, classes:].astype(np.float64)
        if interleaved:
            logits = logits.reshape(len(raw), -1, 4).transpose(0, 2, 1)
        distances = bins(logits.reshape(len(raw), 4, -1))[:, sides]
        priors = make_priors(x.input.height, x.input.width, x.strides, x.prior_offset)
        priors = priors.astype(np.float64)
        strides = priors[:, 2:]
        if not finest_first:
            other = dict(zip(x.strides, x.strides[::-1]))
            strides = np.array([other[int(stride)] for stride in priors[:, 2]])[:, None]
        places = priors[:, :2] / priors[:, 2:] * strides + shift * strides
        places = places if xy else places[:, ::-1]
        distances = distances * strides if with_stride else distances
        boxes = np.concatenate([places - distances[:, :2], places + distances[:, 2:]], axis=1)
        if clip:
            boxes = boxes.clip(0, [x.input.width, x.input.height] * 2)
        return np.concatenate([raw[:, :classes], boxes], axis=1)

    return decode


_SIDES = ("left", "top", "right", "lower")
_MIXED_SIDES = [order for order in itertools.permutations(range(4)) if order != (0, 1, 2, 3)]

DECODE = Step(
    lambda raw, case: stages.decode(raw, case.x),
    {
        "decode: priors shifted by half a cell": _decode(shift=0.5),
        "decode: priors shifted by half a cell, to the upper left": _decode(shift=-0.5),
        "decode: stride not applied to the distances": _decode(with_stride=False),
        "decode: reg_max bins not applied, the most likely one taken": _decode(
            bins=lambda logits: logits.argmax(axis=-1).astype(float)
        ),
        "decode: reg_max bins counted from 1": _decode(bins=lambda logits: _mean_bin(logits) + 1),
        "decode: reg_max bins taken for shares of reg_max": _decode(
            bins=lambda logits: _mean_bin(logits) / (logits.shape[-1] - 1)
        ),
        "decode: softmax not applied to the box logits": _decode(
            bins=lambda logits: logits @ np.arange(logits.shape[-1])
        ),
        "decode: sides and bins exchanged": _decode(interleaved=True),
        "decode: x and y of the priors exchanged": _decode(xy=False),
        "decode: strides of the levels in the reverse order": _decode(finest_first=False),
        "decode: boxes not clipped to the input": _decode(clip=False),
        **{
            f"decode: sides in another order ({', '.join(_SIDES[i] for i in np.argsort(order))})":
                _decode(sides=order)
            for order in _MIXED_SIDES
        },
    },
)  # fmt: skip


def _gather(decoded: np.ndarray, case: Case, threshold: float) -> np.ndarray:
    classes = len(case.x.class_names)
    priors, columns = np.nonzero(decoded[:, :classes] > threshold)
    scores = decoded[priors, columns]
    order = np.argsort(-scores, kind="stable")
    return stages.rows_of(decoded[priors[order], classes:], scores[order], columns[order])


def _other_threshold(decoded: np.ndarray, case: Case) -> np.ndarray:
    if case.lowest is None:
        return stages.gather(decoded, case.x)
    return _gather(decoded, case, case.lowest - NOISE)


def _best_class(decoded: np.ndarray, case: Case) -> np.ndarray:
    classes = len(case.x.class_names)
    best = decoded[:, :classes].argmax(axis=1)
    alone = np.zeros_like(decoded)
    alone[np.arange(len(best)), best] = decoded[np.arange(len(best)), best]
    alone[:, classes:] = decoded[:, classes:]
    return stages.gather(alone, case.x)


NOISE = 1e-5  # of scores between engines, so that the row with the lowest one is found again
OTHER_THRESHOLD = "threshold: scores from about {lowest:.3g} on in place of {x.score_threshold:g}"

GATHER = Step(
    lambda decoded, case: stages.gather(decoded, case.x),
    {
        OTHER_THRESHOLD: _other_threshold,
        "classes: only the best one of each prior": _best_class,
    },
)
