"""Tracks in a picture: boxes in a colour for each id, their trails, lines and zones with counts."""

from __future__ import annotations

import collections

import cv2
import numpy as np

from nanodet_d2.runtime.draw import Style, class_color, draw_boxes

from .areas import Areas, Point
from .tracked import Tracked

_WHITE = (255, 255, 255)


class Trails:
    """The last places of each track, for so many seconds."""

    def __init__(self, seconds: float):
        self.seconds = seconds
        self._places: dict[int, collections.deque[tuple[float, np.ndarray]]] = {}

    def see(self, tracked: Tracked, now: float) -> None:
        """Add the centres of a frame's boxes, and forget what is old."""
        for track, center in zip(tracked.ids.tolist(), tracked.centers()):
            self._places.setdefault(track, collections.deque()).append((now, center))
        for track, places in list(self._places.items()):
            while places and now - places[0][0] > self.seconds:
                places.popleft()
            if not places:
                del self._places[track]

    def draw(self, image: np.ndarray) -> None:
        """Into the image (H, W, 3) uint8 BGR itself."""
        style = Style.of(image)
        for track, places in self._places.items():
            points = np.rint([center for _, center in places]).astype(np.int32)
            cv2.polylines(image, [points], False, class_color(track), style.line, cv2.LINE_AA)


def draw_tracks(
    image: np.ndarray, tracked: Tracked, trails: Trails, areas: Areas, texts: dict[str, str]
) -> np.ndarray:
    """A picture (H, W, 3) uint8 BGR of a frame, which is not changed.

    Args:
        texts: of the lines and zones, by name.
    """
    drawn = image.copy()
    trails.draw(drawn)
    _draw_areas(drawn, areas, texts)
    found, ids = tracked.found, tracked.ids.tolist()
    labels = [f"{name} {track}" for name, track in zip(found.names, ids)]
    return draw_boxes(drawn, found.xyxy, labels, ids)


def _draw_areas(image: np.ndarray, areas: Areas, texts: dict[str, str]) -> None:
    style = Style.of(image)
    shapes: list[tuple[str, tuple[Point, ...], bool]] = [
        (x.name, (x.start, x.end), False) for x in areas.lines
    ]
    shapes += [(x.name, x.corners, True) for x in areas.zones]
    for name, points, closed in shapes:
        corners = np.rint(points).astype(np.int32)
        cv2.polylines(image, [corners], closed, _WHITE, style.line, cv2.LINE_AA)
        x, y = corners[0].tolist()
        place = (max(0, x), max(round(25 * style.text), y - style.line - 2))
        for color, stroke in (((0, 0, 0), 3 * style.stroke), (_WHITE, style.stroke)):
            cv2.putText(
                image, texts.get(name, name), place, cv2.FONT_HERSHEY_SIMPLEX, style.text,
                color, stroke, cv2.LINE_AA,
            )  # fmt: skip
