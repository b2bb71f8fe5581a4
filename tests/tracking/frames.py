"""Detections and tracks by hand, and moving ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nanodet_d2.runtime import Detections
from nanodet_d2.tracking import Tracked
from nanodet_d2.tracking.mot import MotTable

NAMES = ("circle", "square")
SIZE = (200, 400)  # height, width


def found(*rows: Sequence[float]) -> Detections:
    """Rows of x0, y0, x1, y1, score and, if it is not 0, class."""
    table = np.array([(*row, 0)[:6] for row in rows], np.float64).reshape(-1, 6)
    return Detections(
        xyxy=table[:, :4].astype(np.float32),
        confidence=table[:, 4].astype(np.float32),
        class_id=table[:, 5].astype(np.int64),
        class_names=NAMES,
        image_size=SIZE,
    )


def tracked(*rows: Sequence[float]) -> Tracked:
    """Rows of an id, x and y of the centre of a box of 20 px, and, if it is not 0, a class."""
    boxes = [(x - 10, y - 10, x + 10, y + 10, 0.9, *label) for _, x, y, *label in rows]
    return Tracked(found(*boxes), np.array([row[0] for row in rows], np.int64))


def table(*rows: Sequence[float]) -> MotTable:
    """Rows of frame, id, x0, y0, x1, y1 and, if they have one, class; in order."""
    numbers = np.array([(*row, -1)[:7] for row in rows], np.float64).reshape(-1, 7)
    return MotTable(
        frames=numbers[:, 0].astype(np.int64),
        ids=numbers[:, 1].astype(np.int64),
        boxes=numbers[:, 2:6],
        scores=np.ones(len(numbers)),
        classes=numbers[:, 6].astype(np.int64),
    )
