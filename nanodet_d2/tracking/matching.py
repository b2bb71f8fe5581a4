"""Tracks beside ground truth, frame by frame.

Letters: G ground-truth boxes of a frame, K boxes of tracks in it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from .mot import MotTable

SAME = 0.5  # IoU from which on a box is that of an object, as in CLEAR MOT and IDF1
_STAY = 1000.0  # more than any IoU: who was matched in the frame before stays


def iou_matrix(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(G, K) intersection over union of boxes (G, 4) and (K, 4)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    overlap = (high - low).clip(min=0).prod(axis=2)
    areas = [(x[:, 2:] - x[:, :2]).prod(axis=1) for x in (a, b)]
    return overlap / np.maximum(areas[0][:, None] + areas[1] - overlap, 1e-9)


def similarity(truth: MotTable, tracks: MotTable) -> np.ndarray:
    """(G, K) IoU within a frame; 0 between classes, where both tell theirs."""
    told = (truth.classes[:, None] > 0) & (tracks.classes > 0)
    other = told & (truth.classes[:, None] != tracks.classes)
    return np.where(other, 0.0, iou_matrix(truth.boxes, tracks.boxes))


def by_frame(table: MotTable) -> dict[int, MotTable]:
    """The frames that have rows."""
    numbers, starts = np.unique(table.frames, return_index=True)
    ends = [*starts[1:].tolist(), len(table)]
    return {
        int(number): table[np.arange(start, end)]
        for number, start, end in zip(numbers, starts.tolist(), ends)
    }


@dataclasses.dataclass(frozen=True)
class Match:
    """An object that is in a frame, and the track that has it there, None if none has."""

    frame: int
    object: int
    track: int | None


def matches(truth: MotTable, tracks: MotTable) -> Iterator[Match]:
    """All objects of all frames, matched as CLEAR MOT does (Bernardin and Stiefelhagen 2008,
    "Evaluating Multiple Object Tracking Performance", section 2.1): who was matched in the frame
    before stays, and else the sum of IoUs is greatest."""
    from scipy.optimize import linear_sum_assignment

    mine, empty = by_frame(tracks), tracks[np.zeros(0, np.int64)]
    before: dict[int, int] = {}
    for number, objects in by_frame(truth).items():
        present = mine.get(number, empty)
        score = similarity(objects, present)
        is_stay = [[before.get(o) == t for t in present.ids.tolist()] for o in objects.ids.tolist()]
        able = score >= SAME - np.finfo(float).eps
        score = np.where(able, score + _STAY * np.array(is_stay, bool).reshape(score.shape), 0.0)
        rows, columns = linear_sum_assignment(-score)
        now = {
            int(objects.ids[i]): int(present.ids[j])
            for i, j in zip(rows, columns)
            if score[i, j] > 0
        }
        for o in objects.ids.tolist():
            yield Match(number, o, now.get(o))
        if len(present):  # TrackEval goes on from the last frame in which there was any track
            before = now
