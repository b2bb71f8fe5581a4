"""What a tracker makes of the detections in a frame."""

from __future__ import annotations

import dataclasses

import numpy as np

from nanodet_d2.runtime import Detections


@dataclasses.dataclass(frozen=True, eq=False)
class Tracked:
    """The K detections of a frame that belong to tracks.

    Attributes:
        found: their boxes, scores and classes.
        ids: (K,) int64, each from 1 on, and each once.
    """

    found: Detections
    ids: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def centers(self) -> np.ndarray:
        """(K, 2) x and y of the boxes' centres."""
        return (self.found.xyxy[:, :2] + self.found.xyxy[:, 2:]) / 2


class SteadyClasses:
    """Gives a track the class that its detections speak for most, weighted by their scores.

    Trackers go by boxes alone, and a detector changes its mind: without this a track has the class
    of each frame's detection.

    Args:
        seconds: after which what is known of a track that was not seen is forgotten.
    """

    def __init__(self, seconds: float):
        self.seconds = seconds
        self._votes: dict[int, dict[int, float]] = {}
        self._last: dict[int, float] = {}

    def __call__(self, tracked: Tracked, now: float) -> Tracked:
        """The same with these classes; ``now`` is the frame's time in seconds."""
        for track in [x for x, last in self._last.items() if now - last > self.seconds]:
            del self._last[track], self._votes[track]
        found = tracked.found
        rows = zip(tracked.ids.tolist(), found.class_id.tolist(), found.confidence.tolist())
        labels = []
        for track, label, score in rows:
            votes = self._votes.setdefault(track, {})
            votes[label] = votes.get(label, 0.0) + score
            self._last[track] = now
            labels.append(max(votes, key=lambda x: votes[x]))
        steady = dataclasses.replace(found, class_id=np.array(labels, np.int64))
        return Tracked(steady, tracked.ids)
