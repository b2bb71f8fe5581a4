"""What is done with the frames of one video once they are detected in."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from nanodet_d2.runtime import Detections
from nanodet_d2.runtime.run import MAX_FAILURES, MAX_NAMED, in_words
from nanodet_d2.runtime.sources import DEFAULT_FPS, Frame, Source, Video

from .adapter import Follower, memory_of
from .areas import Areas
from .counting import CountFile, Counts
from .drawing import Trails, draw_tracks
from .explain import Seen
from .mot import MotFile
from .results import TrackResults
from .settings import Settings

_TRAIL = 1.5  # seconds


@dataclasses.dataclass(frozen=True)
class Wishes:
    """What is to be done.

    Attributes:
        settings: of the tracker.
        areas: where objects are counted.
        interval: seconds between two rows of a csv of counts.
        frame_rate: frames a second, of folders of pictures, and in place of what a video tells.
        max_frames: of each video; all if None.
        draw: whether pictures and videos are written.
        record: whether what is found is kept, to be explained.

    Raises:
        ValueError: for a number that is out of range.
    """

    settings: Settings = dataclasses.field(default_factory=Settings)
    areas: Areas = dataclasses.field(default_factory=Areas)
    interval: float = 1.0
    frame_rate: float | None = None
    max_frames: int | None = None
    draw: bool = True
    record: bool = False

    def __post_init__(self) -> None:
        for name in ("interval", "frame_rate", "max_frames"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} {value}; allowed: above 0")


class Failures:
    """Frames that failed, of which not all are told one by one.

    Attributes:
        problems: in words.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._count = self._in_a_row = 0

    def success(self) -> None:
        self._in_a_row = 0

    def add(self, frame: Frame, error: Exception) -> None:
        """Note a failure.

        Raises:
            ValueError: if there were too many, one after the other.
        """
        self._count, self._in_a_row = self._count + 1, self._in_a_row + 1
        if self._count <= MAX_NAMED:
            number = "" if frame.number is None else f", frame {frame.number}"
            self.problems.append(f"{frame.name}{number}: {in_words(error)}")
        if self._in_a_row == MAX_FAILURES:
            raise ValueError(f"{frame.name}: given up after {self._in_a_row} failures in a row")

    def close(self) -> list[str]:
        """All problems."""
        more = self._count - MAX_NAMED
        return [*self.problems, *([f"{more} more frames failed"] if more > 0 else [])]


class FollowVideo:
    """Tracks, counts, writes and draws, frame by frame.

    Attributes:
        frame_rate: frames a second.
        failures: frames that could not be written.
        seen: what was found in each frame, where it is to be recorded.
        last: number of the last frame.
    """

    def __init__(
        self, source: Source, name: str, results: TrackResults, folder: Path, wish: Wishes
    ):
        self.source, self.results, self.wish = source, results, wish
        self.frame_rate = wish.frame_rate or DEFAULT_FPS
        if isinstance(source, Video):
            if wish.frame_rate and not source.camera:
                source.fps = wish.frame_rate
            self.frame_rate = source.fps
        self._follow = Follower(wish.settings, self.frame_rate)
        memory = memory_of(wish.settings)
        self.counts = Counts(wish.areas, tuple(results.class_names), memory)
        self._trails = Trails(_TRAIL)
        self._mot = MotFile(folder / f"{name}.txt")
        self._count_file: CountFile | None = None
        if wish.areas:
            path = folder / f"{name}_counts.csv"
            self._count_file = CountFile(path, self.counts, wish.interval)
        self.failures = Failures()
        self.seen: list[Seen] = []
        self.tracks, self.last = 0, -1
        results.begin(name)

    @property
    def mot_path(self) -> Path:
        return self._mot.path

    def __call__(self, frame: Frame, found: Detections | None) -> None:
        """The next frame; without detections if that failed."""
        self.last = number = frame.index
        seconds = number / self.frame_rate if frame.seconds is None else frame.seconds
        drawn = frame.image
        try:
            if found is not None:
                drawn = self._use(frame, number, seconds, found)
            if self.wish.draw and (found is not None or frame.number is not None):
                self.source.write(frame, drawn)
        except Exception as error:  # one frame does not cost the others
            self.failures.add(frame, error)
        else:
            self.failures.success()

    def _use(self, frame: Frame, number: int, seconds: float, found: Detections) -> np.ndarray:
        """Returns the picture with the tracks, or as it is if none is wanted."""
        if self.wish.record:
            self.seen.append(Seen(number, seconds, found))
        tracked = self._follow(found, seconds)
        self.tracks = max([self.tracks, *tracked.ids.tolist()])
        if self._count_file is not None:
            self._count_file.pass_time(seconds)
        self.counts.see(tracked, seconds)
        self.results.add_tracks(frame, number, tracked)
        self._mot.add(number, tracked)
        if not self.wish.draw:
            return frame.image
        self._trails.see(tracked, seconds)
        texts = self.counts.texts()
        return draw_tracks(frame.image, tracked, self._trails, self.wish.areas, texts)

    def close(self) -> None:
        """End the files."""
        self._mot.close()
        if self._count_file is not None:
            self._count_file.close()

    def facts(self) -> dict[str, Any]:
        """For a machine."""
        told: dict[str, Any] = {"tracks": self.tracks, "mot": str(self.mot_path)}
        if self.wish.areas:
            told["counts"] = self.counts.facts()
        return told
