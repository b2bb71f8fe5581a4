"""Large pictures in slices: where they lie, and how what was found in them becomes one list.

An object at the edge of a slice is seen in part, and the slice beside it, which overlaps, sees
another part or all of it. So a box that ends at a slice's inner edge is called cut: how far its
object reaches is not known. Boxes are compared within what both have seen: a cut one gives way to a
whole one that covers it, and two cut ones are joined. Whole ones are compared as NMS does.

Letters: T slices, K boxes, M boxes that were kept so far. Boxes are XYXY, pixels of the picture.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from .detections import Detections

# A box is cut where it ends within this share of a slice's side from its edge: about a cell of the
# finest level of a 416 px input.
_EDGE = 0.02
_SAME = 0.5  # covered share, or IoU of two cut boxes, within what both have seen
_TRUST = 0.5  # a whole box extends a cut one whose score is at most 1 / _TRUST times its own


@dataclasses.dataclass(frozen=True)
class Tiles:
    """How a large picture is cut into slices.

    Attributes:
        size: side of a slice, pixels of the picture; each is stretched to the network's input.
        overlap: least share of a slice that the next one shows, too.
        whole: whether the picture as a whole is looked at as well, for what no slice shows whole.
        levels: slices of so many sizes, each twice the one before, as long as the picture is
            larger: for objects that are too large for a slice, and too small in the whole picture.

    Raises:
        ValueError: for a size below 16, an overlap that is not at least 0 and below 0.9, or levels
            that are not 1 to 8.

    Example:
        >>> from nanodet_d2.runtime import Detector, Tiles
        >>> Detector("model.onnx", tiles=Tiles(size=640, overlap=0.2))("street.jpg")
    """

    size: int = 640
    overlap: float = 0.2
    whole: bool = True
    levels: int = 1

    def __post_init__(self) -> None:
        if type(self.size) is not int or self.size < 16:
            raise ValueError(f"tiles of size {self.size!r}; allowed: whole numbers from 16 on")
        if not 0 <= self.overlap < 0.9:
            raise ValueError(f"overlap {self.overlap} of tiles; allowed: 0 to below 0.9")
        if type(self.levels) is not int or not 1 <= self.levels <= 8:
            raise ValueError(f"levels {self.levels!r} of tiles; allowed: 1 to 8")


def slices(height: int, width: int, tiles: Tiles) -> np.ndarray:
    """The slices of a picture, row by row, those of the smallest size first, and last, if wanted,
    the whole picture.

    They are spread evenly, so that all of a level have the same size; a picture that is smaller
    than a slice in a direction is not cut there.

    Returns:
        (T, 4) int64.
    """
    found: list[tuple[int, int, int, int]] = []
    for size in (tiles.size * 2**level for level in range(tiles.levels)):
        if found and size >= max(height, width):
            break
        found += [
            (x, y, min(x + size, width), min(y + size, height))
            for y in _starts(height, size, tiles.overlap)
            for x in _starts(width, size, tiles.overlap)
        ]
    if tiles.whole and len(found) > 1:
        found.append((0, 0, width, height))
    return np.array(found, np.int64)


def _starts(length: int, size: int, overlap: float) -> list[int]:
    """Where slices begin along a side."""
    if length <= size:
        return [0]
    step = max(1, math.floor(size * (1 - overlap)))
    last = length - size
    count = -(-last // step)
    return [i * last // count for i in range(count + 1)]


def detect_in_slices(
    detect: Callable[[list[np.ndarray]], list[Detections]],
    image: np.ndarray,
    tiles: Tiles,
    *,
    batch: int,
    nms_threshold: float,
) -> Detections:
    """Detect in the slices of an image (H, W, 3), so many at once, and merge what is found."""
    height, width = image.shape[:2]
    places = slices(height, width, tiles)
    parts = [image[y0:y1, x0:x1] for x0, y0, x1, y1 in places.tolist()]
    found: list[Detections] = []
    for start in range(0, len(parts), batch):
        found += detect(parts[start : start + batch])
    return merge(found, places, (height, width), nms_threshold)


def merge(
    found: Sequence[Detections],
    places: np.ndarray,
    image_size: tuple[int, int],
    nms_threshold: float,
) -> Detections:
    """One list of what was found in the slices.

    Args:
        found: of each slice, in its own pixels, with each object once.
        places: (T, 4) the slices.
        image_size: (height, width) of the picture.
        nms_threshold: IoU above which two whole boxes of a class are one object.

    Returns:
        in the picture's pixels, best first. There is no limit but those of the slices.
    """
    offsets = [np.tile(place[:2], 2).astype(np.float32) for place in places]
    boxes = np.concatenate([x.xyxy + offset for x, offset in zip(found, offsets)])
    scores = np.concatenate([x.confidence for x in found])
    classes = np.concatenate([x.class_id for x in found])
    origins = np.repeat(np.arange(len(found)), [len(x) for x in found])
    is_cut = cut(boxes, places[origins], image_size)
    known = np.where(is_cut[:, None], places[origins], [0, 0, image_size[1], image_size[0]])
    kept = _Kept(len(boxes), nms_threshold)
    for i in np.argsort(-scores, kind="stable").tolist():
        kept.take(boxes[i], float(scores[i]), int(classes[i]), known[i], bool(is_cut[i]))
    rows = np.flatnonzero(kept.is_there)
    return Detections(
        xyxy=kept.boxes[rows],
        confidence=kept.scores[rows].astype(np.float32),
        class_id=kept.classes[rows],
        class_names=found[0].class_names,
        image_size=image_size,
    )


def cut(boxes: np.ndarray, places: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Whether boxes (K, 4) end at an edge of their slices (K, 4) within the picture; (K,) bool."""
    height, width = image_size
    margin = _EDGE * (places[:, 2:] - places[:, :2])
    low = (boxes[:, :2] < places[:, :2] + margin) & (places[:, :2] > 0)
    high = (boxes[:, 2:] > places[:, 2:] - margin) & (places[:, 2:] < [width, height])
    return (low | high).any(axis=1)


class _Kept:
    """The boxes that are kept so far, best first, of which each is an object of its own.

    ``known`` is where the extent of a box's object has been seen: the slice of a cut box, the whole
    picture for others.
    """

    def __init__(self, most: int, nms_threshold: float):
        self.count = 0
        self.boxes = np.zeros((most, 4), np.float32)
        self.known = np.zeros((most, 4), np.float64)
        self.scores = np.zeros(most, np.float64)
        self.classes = np.zeros(most, np.int64)
        self.is_cut = np.zeros(most, bool)
        self.is_there = np.zeros(most, bool)  # not part of another one, as turned out later
        self.nms_threshold = nms_threshold

    def take(
        self, box: np.ndarray, score: float, label: int, known: np.ndarray, is_cut: bool
    ) -> None:
        """Keep a box, the next best, or find that it belongs to what is kept."""
        is_rival = self.is_there[: self.count] & (self.classes[: self.count] == label)
        rivals = np.flatnonzero(is_rival)
        same = rivals[self._is_same(box, score, known, is_cut, rivals)]
        if not len(same):
            self._put(self.count, box, known, is_cut)
            self.scores[self.count], self.classes[self.count] = score, label
            self.is_there[self.count] = True
            self.count += 1
        elif self.is_cut[same].all():  # else it tells nothing new
            if is_cut:
                box = _around(box, self.boxes[same])
                known = _around(known, self.known[same])
            self.is_there[same[1:]] = False
            self._put(int(same[0]), box, known, is_cut)

    def _put(self, i: int, box: np.ndarray, known: np.ndarray, is_cut: bool) -> None:
        self.boxes[i], self.known[i], self.is_cut[i] = box, known, is_cut

    def _is_same(
        self, box: np.ndarray, score: float, known: np.ndarray, is_cut: bool, rivals: np.ndarray
    ) -> np.ndarray:
        """Which of the rivals are the same object; (len(rivals),) bool."""
        seen = _common(known, self.known[rivals])
        mine, theirs = _common(box, seen), _common(self.boxes[rivals], seen)
        overlap = _area(_common(mine, theirs))
        my_area, their_area = _area(mine), _area(theirs)
        iou = overlap / np.maximum(my_area + their_area - overlap, 1e-9)
        theirs_cut = self.is_cut[rivals]
        if not is_cut:
            trusted = score > _TRUST * self.scores[rivals]
            covers = trusted & (overlap > _SAME * np.maximum(their_area, 1e-9))
            return np.where(theirs_cut, covers, iou > self.nms_threshold)
        # The detector has told those of one slice apart.
        elsewhere = (self.known[rivals] != known).any(axis=1)
        covered = overlap > _SAME * np.maximum(my_area, 1e-9)
        return np.where(theirs_cut, elsewhere & (iou > _SAME), covered)


def _common(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """What boxes (…, 4) have in common; of those that do not meet, one without area."""
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    return np.concatenate([low, np.maximum(low, high)], axis=-1)


def _around(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The box around a box (4,) and others (M, 4)."""
    low = np.minimum(box[:2], boxes[:, :2].min(axis=0))
    return np.concatenate([low, np.maximum(box[2:], boxes[:, 2:].max(axis=0))])


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[..., 2:] - boxes[..., :2]).prod(axis=-1)
