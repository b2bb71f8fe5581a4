"""Ids from one frame to the next, and no further: what a tracker has to be better than."""

from __future__ import annotations

import numpy as np

from nanodet_d2.runtime import Detections

from .settings import Settings
from .tracked import Tracked


class Nearest:
    """Each box takes the id of the nearest one of the frame before, at most its longer side away.

    What is missing for a frame comes back with another id.
    """

    def __init__(self, settings: Settings):
        self.least_score = settings.high
        self._before = np.zeros((0, 2))
        self._ids = np.zeros(0, np.int64)
        self._next = 1

    def update(self, found: Detections, seconds: float) -> Tracked:
        """The detections that are sure enough, with ids."""
        found = found[found.confidence >= self.least_score]
        boxes = found.xyxy.astype(np.float64)
        centers = (boxes[:, :2] + boxes[:, 2:]) / 2
        ids = np.zeros(len(found), np.int64)
        distance = np.linalg.norm(centers[:, None] - self._before, axis=2)  # (now, before)
        allowed = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0)
        taken: set[int] = set()
        for flat in np.argsort(distance, axis=None, kind="stable").tolist():
            now, before = divmod(flat, len(self._before))
            if not ids[now] and before not in taken and distance[now, before] <= allowed[now]:
                ids[now] = self._ids[before]
                taken.add(before)
        for i in np.flatnonzero(ids == 0):
            ids[i], self._next = self._next, self._next + 1
        self._before, self._ids = centers, ids
        return Tracked(found, ids)
