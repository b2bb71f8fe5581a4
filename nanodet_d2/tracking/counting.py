"""Objects that cross lines and enter zones, each once however it trembles there.

A track that is lost for a while and found again, as behind a pillar, is remembered; supervision's
``LineZone`` forgets on which side it was after two frames, so it is not used here.
"""

from __future__ import annotations

import collections
import csv
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from .areas import Areas, Line, Zone
from .tracked import Tracked

_MARGIN = 0.05  # of a box's side: as far as its centre has to be from a line to be on a side
COLUMNS = ("seconds", "name", "class", "in", "out", "inside")


class Counter:
    """Counts per class at one line or zone.

    Attributes:
        entered, left: class id -> how many came in and went out so far.
        inside: class id -> how many are there; of a zone only.
    """

    def __init__(self, name: str):
        self.name = name
        self.entered: collections.Counter[int] = collections.Counter()
        self.left: collections.Counter[int] = collections.Counter()
        self.inside: collections.Counter[int] = collections.Counter()

    def see(self, track: int, label: int, center: np.ndarray, side: float) -> None:
        """Where a track's box is now: its centre (x, y), and the root of its area."""
        raise NotImplementedError

    def forget(self, track: int) -> None:
        """The track will not come back."""
        raise NotImplementedError


class LineCounter(Counter):
    """An object counts when the way from its last place on one side to that on the other crosses
    the line between its ends."""

    def __init__(self, line: Line):
        super().__init__(line.name)
        self.start, self.end = np.array(line.start), np.array(line.end)
        self._length = float(np.linalg.norm(self.end - self.start))
        self._last: dict[int, np.ndarray] = {}

    def see(self, track: int, label: int, center: np.ndarray, side: float) -> None:
        now = _turn(self.start, self.end, center)
        if abs(now) <= _MARGIN * side * self._length:
            return
        before = self._last.get(track)
        self._last[track] = center
        if before is None or (_turn(self.start, self.end, before) > 0) == (now > 0):
            return
        # The line's ends lie on different sides of the way.
        if _turn(before, center, self.start) * _turn(before, center, self.end) <= 0:
            (self.entered if now < 0 else self.left)[label] += 1

    def forget(self, track: int) -> None:
        self._last.pop(track, None)


class ZoneCounter(Counter):
    """An object is in a zone when its centre is; one that appears within has come in, and one that
    is lost there has not gone out."""

    def __init__(self, zone: Zone):
        super().__init__(zone.name)
        self.corners = np.array(zone.corners, np.float32)
        self._inside: dict[int, int] = {}

    def see(self, track: int, label: int, center: np.ndarray, side: float) -> None:
        distance = cv2.pointPolygonTest(self.corners, (float(center[0]), float(center[1])), True)
        was_inside = track in self._inside
        if abs(distance) <= _MARGIN * side:  # at the border it stays what it is
            return
        if distance > 0 and not was_inside:
            self._inside[track] = label
            self.entered[label] += 1
            self.inside[label] += 1
        elif distance < 0 and was_inside:
            self.inside[self._inside.pop(track)] -= 1
            self.left[label] += 1

    def forget(self, track: int) -> None:
        if track in self._inside:
            self.inside[self._inside.pop(track)] -= 1


def _turn(a: np.ndarray, b: np.ndarray, point: np.ndarray) -> float:
    """Above 0 where the point lies to the right of the way from a to b, as one sees the picture;
    its distance times the way's length."""
    return float((b[0] - a[0]) * (point[1] - a[1]) - (b[1] - a[1]) * (point[0] - a[0]))


class Counts:
    """All lines and zones of a video.

    Args:
        seconds: after which a track that was not seen is forgotten.
    """

    def __init__(self, areas: Areas, class_names: tuple[str, ...], seconds: float):
        self.class_names = class_names
        self.seconds = seconds
        self.counters: list[Counter] = [LineCounter(x) for x in areas.lines]
        self.counters += [ZoneCounter(x) for x in areas.zones]
        self._last: dict[int, float] = {}

    def see(self, tracked: Tracked, now: float) -> None:
        """The tracks of a frame, taken at ``now`` seconds."""
        for track in [x for x, last in self._last.items() if now - last > self.seconds]:
            del self._last[track]
            for counter in self.counters:
                counter.forget(track)
        boxes = tracked.found.xyxy
        sides = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1)).tolist()
        rows = zip(tracked.ids.tolist(), tracked.found.class_id.tolist(), tracked.centers(), sides)
        for track, label, center, side in rows:
            self._last[track] = now
            for counter in self.counters:
                counter.see(track, label, center.astype(np.float64), side)

    def rows(self) -> list[tuple[str, str, int, int, int]]:
        """Name, class, in, out and inside, of each class that was met there."""
        return [
            (x.name, self.class_names[i], x.entered[i], x.left[i], x.inside[i])
            for x in self.counters
            for i in sorted({*x.entered, *x.left})
        ]

    def facts(self) -> dict[str, Any]:
        """For a machine: name -> class -> counts."""
        found: dict[str, Any] = {x.name: {} for x in self.counters}
        for name, label, entered, left, inside in self.rows():
            found[name][label] = {"in": entered, "out": left, "inside": inside}
        return found

    def texts(self) -> dict[str, str]:
        """Name -> what is written beside it in the picture."""
        return {
            x.name: f"{x.name}: {sum(x.entered.values())} in, {sum(x.left.values())} out"
            for x in self.counters
        }


class CountFile:
    """A csv of counts so far, with a row for each name and class at the end of each interval.

    Args:
        interval: seconds of the video between rows.
    """

    def __init__(self, path: Path, counts: Counts, interval: float):
        self.counts, self.interval = counts, interval
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file)
        self._writer.writerow(COLUMNS)
        self._due = interval
        self._now = 0.0

    def pass_time(self, now: float) -> None:
        """Write the intervals that have ended before ``now``; call it before the frame is seen."""
        while now >= self._due:
            self._write(self._due)
            self._due += self.interval
        self._now = now

    def _write(self, seconds: float) -> None:
        self._writer.writerows((round(seconds, 3), *row) for row in self.counts.rows())
        self._file.flush()

    def close(self) -> None:
        """Write what the last, unfinished interval has brought."""
        self._write(self._now)
        self._file.close()
