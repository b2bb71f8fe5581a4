"""How large pictures should be looked at: what each choice shows of the boxes, and what it costs.

Letters: G boxes. Sizes of boxes are roots of areas, in pixels of the network's input.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from detectron2.structures import BoxMode

from nanodet_d2.runtime.tiles import Tiles, slices

SMALL = 8.0  # px: a cell of the finest level; smaller boxes are hard to find
INPUT_SIZES = ((320, 320), (416, 416), (640, 640))
TILE_SIZES = (320, 416, 512, 640, 832, 1024, 1280, 1664)
_ALLOWED = 0.05  # share of boxes that may stay small
_SLACK = 0.01  # above the least share that any choice leaves, where none leaves so few
_UNIT = 416 * 416  # pixels of the call that costs are counted in
_MEDIUM = 32.0  # px: boxes up to this size in the whole picture are those that tiles are for
_OVERLAPS = (0.1, 0.5)  # least and most


@dataclasses.dataclass(frozen=True)
class Choice:
    """A way to look at the pictures.

    Attributes:
        input_size: (height, width) of the network's input.
        tiles: None for whole pictures.
        small_share: of the boxes, those that stay under ``SMALL``.
        calls: of the network for a picture, on average.
        cost: of a picture, in calls at 416 x 416.
    """

    input_size: tuple[int, int]
    tiles: Tiles | None
    small_share: float
    calls: float
    cost: float

    def words(self) -> str:
        """One line."""
        height, width = self.input_size
        cut = "whole pictures"
        if self.tiles is not None:
            cut = f"tiles of {self.tiles.size} px, overlap {self.tiles.overlap:g}"
        return (
            f"{cut} at {height} x {width}: {100 * self.small_share:.1f} % of the boxes under "
            f"{SMALL:g} px, {self.calls:.1f} calls a picture, cost {self.cost:.1f}"
        )

    def facts(self) -> dict[str, Any]:
        """For a machine."""
        tiles = None if self.tiles is None else dataclasses.asdict(self.tiles)
        return {**dataclasses.asdict(self), "input_size": list(self.input_size), "tiles": tiles}


def choices(
    records: Sequence[Mapping[str, Any]], input_sizes: Sequence[tuple[int, int]] = INPUT_SIZES
) -> list[Choice]:
    """All ways that are worth a look, whole pictures first.

    Args:
        records: detectron2's data set dicts, with ``height`` and ``width``.
        input_sizes: (height, width) of the network's input.

    Raises:
        ValueError: without a single box.
    """
    boxes, images = _boxes_and_images(records)
    counts = collections.Counter((int(x["height"]), int(x["width"])) for x in records)
    largest = max(max(size) for size in counts)
    sizes = [None, *(x for x in TILE_SIZES if x < largest)]
    return [_choice(boxes, images, counts, n, size) for n in input_sizes for size in sizes]


def propose(
    records: Sequence[Mapping[str, Any]], input_sizes: Sequence[tuple[int, int]] = INPUT_SIZES
) -> Choice:
    """The cheapest way that leaves few boxes small, else nearly as few as any; as above."""
    return best(choices(records, input_sizes))


def best(found: Sequence[Choice]) -> Choice:
    """The proposal among choices."""
    limit = max(_ALLOWED, min(x.small_share for x in found) + _SLACK)
    able = [x for x in found if x.small_share <= limit]
    return min(able, key=lambda x: (x.cost, x.small_share))


def boxes_of(record: Mapping[str, Any]) -> np.ndarray:
    """(G, 4) XYXY pixels of the picture, of all annotations of a data set dict."""
    boxes = [
        BoxMode.convert(x["bbox"], x.get("bbox_mode", BoxMode.XYXY_ABS), BoxMode.XYXY_ABS)
        for x in record.get("annotations", ())
    ]
    return np.asarray(boxes, dtype=np.float64).reshape(-1, 4)


def _boxes_and_images(
    records: Sequence[Mapping[str, Any]],
) -> tuple[np.ndarray, np.ndarray]:
    """Sides (G, 2) of the boxes but crowds, and sides (G, 2) of their pictures; width, height."""
    sides, pictures = [np.zeros((0, 2))], [np.zeros((0, 2))]
    for record in records:
        crowd = [bool(x.get("iscrowd", 0)) for x in record.get("annotations", ())]
        boxes = boxes_of(record)[~np.array(crowd, bool)]
        sides.append(boxes[:, 2:] - boxes[:, :2])
        pictures.append(np.tile([record["width"], record["height"]], (len(boxes), 1)))
    found = np.concatenate(sides)
    if not len(found):
        raise ValueError("no box tells how large objects are: tiles cannot be planned")
    return found, np.concatenate(pictures)


def _choice(
    boxes: np.ndarray,
    images: np.ndarray,
    counts: Mapping[tuple[int, int], int],
    input_size: tuple[int, int],
    size: int | None,
) -> Choice:
    scale = np.array(input_size[::-1])
    whole = np.sqrt((boxes * scale / images).prod(axis=1))
    tiles, shown = None, whole
    if size is not None:
        tiles = Tiles(size=size, overlap=_overlap(boxes[whole < _MEDIUM], size))
        shown = np.sqrt((boxes * scale / np.minimum(images, size)).prod(axis=1))
    total = sum(counts.values())
    calls = total if tiles is None else sum(len(slices(*x, tiles)) * n for x, n in counts.items())
    return Choice(
        input_size=(int(input_size[0]), int(input_size[1])),
        tiles=tiles,
        small_share=float((shown < SMALL).mean()),
        calls=calls / total,
        cost=calls / total * input_size[0] * input_size[1] / _UNIT,
    )


def _overlap(boxes: np.ndarray, size: int) -> float:
    """So much that nine of ten boxes (G, 2) are whole in some tile, in steps of 0.05."""
    low, high = _OVERLAPS
    if not len(boxes):
        return low
    side = float(np.quantile(boxes.max(axis=1), 0.9))
    return min(high, max(low, math.ceil(20 * side / size) / 20))
