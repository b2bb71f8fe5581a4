"""The trackers of the package ``trackers`` (Apache-2.0) behind one call."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np

from nanodet_d2.runtime import Detections

from .nearest import Nearest
from .settings import Settings
from .tracked import SteadyClasses, Tracked

EXTRA = "nanodet-d2[video]"
_BUFFER_RATE = 30.0  # frames a second that the library counts the life of a lost track in


class Tracker(Protocol):
    """Gives ids to the detections of one frame after the other."""

    def update(self, found: Detections, seconds: float) -> Tracked:
        """The detections that belong to tracks.

        Args:
            found: all down to the settings' ``low``.
            seconds: when the frame was taken; it grows with each.
        """
        ...


def require_extra(packages: Iterable[str], purpose: str) -> None:
    """Raise ``ImportError`` naming the packages of the extra that are not installed."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"{purpose} needs {', '.join(missing)}, not installed here: pip install '{EXTRA}'"
        )


def make_tracker(settings: Settings, frame_rate: float) -> Tracker:
    """A new tracker.

    Args:
        frame_rate: frames a second of the video. Where frames are left out, on purpose or because a
            camera is faster than the detector, their times tell the tracker so.

    Raises:
        ImportError: where the library is not installed.
    """
    require_tracker(settings)
    if settings.tracker == "nearest":
        return Nearest(settings)
    return LibraryTracker(settings, frame_rate)


def require_tracker(settings: Settings) -> None:
    """Raise ``ImportError`` where the tracker's library is not installed."""
    if settings.tracker != "nearest":
        require_extra(["trackers", "supervision"], f"the tracker {settings.tracker}")


class Follower:
    """A tracker whose tracks keep their classes.

    Args:
        frame_rate: as :func:`make_tracker`'s.
    """

    def __init__(self, settings: Settings, frame_rate: float):
        self._tracker = make_tracker(settings, frame_rate)
        self._steady = SteadyClasses(memory_of(settings))

    def __call__(self, found: Detections, seconds: float) -> Tracked:
        return self._steady(self._tracker.update(found, seconds), seconds)


def memory_of(settings: Settings) -> float:
    """Seconds after which nobody needs to know of a track that was not seen."""
    return 2 * settings.lost + 1


class LibraryTracker:
    """One of the library's trackers, which are told the time of each frame."""

    def __init__(self, settings: Settings, frame_rate: float):
        import supervision
        import trackers

        self._supervision = supervision
        # Below ``high`` only ByteTrack has a use for boxes.
        self._least_score = settings.low if settings.tracker == "bytetrack" else settings.high
        shared: dict[str, Any] = {
            "frame_rate": frame_rate,
            "lost_track_buffer": round(settings.lost * _BUFFER_RATE),
            "minimum_consecutive_frames": settings.confirm,
            "minimum_iou_threshold": settings.iou,
        }
        start = {"track_activation_threshold": settings.start}
        high = {"high_conf_det_threshold": settings.high}
        if settings.tracker == "bytetrack":
            self.tracker: Any = trackers.ByteTrackTracker(**shared, **start, **high)
        elif settings.tracker == "ocsort":
            self.tracker = trackers.OCSORTTracker(**shared, **high)
        else:
            self.tracker = trackers.SORTTracker(**shared, **start)

    def update(self, found: Detections, seconds: float) -> Tracked:
        """As :class:`Tracker`'s."""
        found = found[found.confidence >= self._least_score]
        given = self._supervision.Detections(
            xyxy=found.xyxy.astype(np.float64),
            confidence=found.confidence,
            class_id=found.class_id,
            data={"row": np.arange(len(found))},
        )
        result = self.tracker.update(given, timestamp=seconds)
        ids = np.asarray(result.tracker_id, np.int64).reshape(-1)
        # Those of no track, or of one that is not sure yet, are -1. The library counts from 0.
        kept = ids >= 0
        rows = np.asarray(result.data["row"], np.int64) if len(result) else np.zeros(0, np.int64)
        return Tracked(found[rows[kept]], ids[kept] + 1)
