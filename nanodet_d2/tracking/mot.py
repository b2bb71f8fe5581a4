"""Tracks as text in the format of the MOT Challenge (Milan et al. 2016, "MOT16", section 3).

A line is ``frame,id,left,top,width,height,score,class,…``; frames, ids and classes count from 1.
The class is that of ``class_names``, in its order; in ground truth a score of 0 means that the
object is not to be found, and -1 in place of a class that there is but one kind of object.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from .tracked import Tracked

_LEAST, _WITH_SCORE, _WITH_CLASS = 6, 7, 8  # columns


@dataclasses.dataclass(frozen=True, eq=False)
class MotTable:
    """N boxes of tracks, ordered by frame.

    Attributes:
        frames: (N,) int64, from 1 on.
        ids: (N,) int64.
        boxes: (N, 4) XYXY, pixels.
        scores: (N,).
        classes: (N,) int64 from 1 on, or -1.
    """

    frames: np.ndarray
    ids: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, rows: np.ndarray) -> MotTable:
        return MotTable(*(getattr(self, x.name)[rows] for x in dataclasses.fields(self)))


class MotFile:
    """Writes the tracks of a video, frame by frame."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = open(path, "w", encoding="ascii")

    def add(self, number: int, tracked: Tracked) -> None:
        """Append a frame; ``number`` counts from 0."""
        self._file.writelines(mot_lines(number, tracked))

    def close(self) -> None:
        self._file.close()


def mot_lines(number: int, tracked: Tracked) -> list[str]:
    """The lines of a frame, whose number counts from 0."""
    found = tracked.found
    rows = zip(
        tracked.ids.tolist(),
        found.xyxy.tolist(),
        found.confidence.tolist(),
        found.class_id.tolist(),
    )
    return [
        f"{number + 1},{track},{x0:.2f},{y0:.2f},{x1 - x0:.2f},{y1 - y0:.2f},{score:.4f},"
        f"{label + 1},-1,-1\n"
        for track, (x0, y0, x1, y1), score, label in rows
    ]


def read_mot(path: Path, *, is_truth: bool = False) -> MotTable:
    """Read such a file; an empty one has no tracks.

    Args:
        is_truth: leave out what has a score of 0.

    Raises:
        ValueError: for another content, or a track that is twice in a frame.
        FileNotFoundError: if there is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"MOT file {path} not found")
    lines = [x for x in path.read_text(encoding="utf-8").splitlines() if x.strip()]
    try:
        rows = np.array([[float(x) for x in line.rstrip(", ").split(",")] for line in lines])
    except ValueError as error:
        raise ValueError(f"{path} is no MOT text: {error}") from error
    if not len(lines):
        rows = np.zeros((0, _WITH_CLASS))
    if rows.ndim != 2 or rows.shape[1] < _LEAST or not np.isfinite(rows).all():
        raise ValueError(
            f"{path} is no MOT text; allowed: frame,id,left,top,width,height,score,class in each "
            "line, numbers"
        )
    count, columns = rows.shape
    scores = rows[:, 6] if columns >= _WITH_SCORE else np.ones(count)
    classes = rows[:, 7] if columns >= _WITH_CLASS else np.full(count, -1.0)
    boxes = np.concatenate([rows[:, 2:4], rows[:, 2:4] + rows[:, 4:6]], axis=1)
    frames, ids = rows[:, 0].astype(np.int64), rows[:, 1].astype(np.int64)
    table = MotTable(frames, ids, boxes, scores, classes.astype(np.int64))
    if is_truth:
        table = table[table.scores != 0]
    table = table[np.lexsort((table.ids, table.frames))]
    _require_once(table, path)
    return table


def _require_once(table: MotTable, path: Path) -> None:
    same = (np.diff(table.frames) == 0) & (np.diff(table.ids) == 0)
    if same.any():
        i = int(np.flatnonzero(same)[0])
        raise ValueError(f"{path} has id {table.ids[i]} twice in frame {table.frames[i]}")
    if len(table) and table.frames.min() < 1:
        raise ValueError(f"{path} has frame {table.frames.min()}; allowed: 1 or more")
