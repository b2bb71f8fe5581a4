"""What a tracker is told."""

from __future__ import annotations

import dataclasses
import math

TRACKERS = ("bytetrack", "ocsort", "sort", "nearest")


@dataclasses.dataclass(frozen=True)
class Settings:
    """A tracker and its thresholds.

    The scores were chosen by HOTA on drawn videos, with three detectors from poor to good.

    Attributes:
        tracker: one of ``TRACKERS``.
        low: lowest score that is looked at, to go on with a track: those between ``low`` and
            ``high`` are for ByteTrack's second association (Zhang et al. 2022, "ByteTrack",
            section 3), which takes an occluded object's doubtful box.
        high: score from which on a box takes part in the first association.
        start: score from which on a box begins a track; with OC-SORT and "nearest" that is
            ``high``.
        iou: of a track's predicted box and one that is found, at least.
        lost: seconds for which a track is kept without a box.
        confirm: frames in a row that a new track needs, before it gets an id.

    Raises:
        ValueError: for a value that is out of range.
    """

    tracker: str = "bytetrack"
    low: float = 0.3
    high: float = 0.45
    start: float = 0.55
    iou: float = 0.1
    lost: float = 1.0
    confirm: int = 2

    def __post_init__(self) -> None:
        if self.tracker not in TRACKERS:
            raise ValueError(f"tracker {self.tracker!r}; allowed: {', '.join(TRACKERS)}")
        scores = (self.low, self.high, self.start)
        if not 0 <= self.low <= self.high <= self.start <= 1:
            raise ValueError(f"low, high, start {scores}; allowed: 0 <= low <= high <= start <= 1")
        if not 0 < self.iou < 1:
            raise ValueError(f"iou {self.iou}; allowed: above 0, below 1")
        if not 0 <= self.lost < math.inf:
            raise ValueError(f"lost {self.lost}; allowed: seconds from 0 on")
        if self.confirm < 1:
            raise ValueError(f"confirm {self.confirm}; allowed: 1 or more frames")
