"""Training on slices of large pictures: they are cut as detection cuts them, when they are read.

No files are written: a slice is a data set dict of its own, with ``tile``, its place in the file.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from detectron2.structures import BoxMode

from nanodet_d2.runtime.images import ImageError
from nanodet_d2.runtime.tiles import Tiles, slices

from .checks import require_number
from .images import image_size
from .plan import boxes_of, propose

logger = logging.getLogger(__name__)

AUTO = "auto"
MIN_VISIBLE = 0.4  # of a box's area, below which a slice does not show the object
_EMPTY = 0.5  # slices without a box, for each with one
_KEYS = ("size", "overlap", "whole", "levels", "min_visible")

Record = dict[str, Any]


def tile_records(
    records: Sequence[Record], tiles: Any, *, input_size: tuple[int, int] | None
) -> list[Record]:
    """The records with large pictures cut into slices.

    Args:
        records: detectron2's data set dicts.
        tiles: side of a slice; a mapping of ``size``, ``overlap``, ``whole``, ``levels`` and
            ``min_visible``; ``Tiles``; or "auto", what :func:`nanodet_d2.data.plan.propose` says.
            None leaves all as it is.
        input_size: (height, width) of the samples; needed for "auto".

    Raises:
        ValueError: for anything else.
    """
    if tiles is None:
        return list(records)
    rule, min_visible = _read(tiles)
    sized = [_with_size(x) for x in records]
    if rule is None:
        assert input_size is not None
        choice = propose([x for x in sized if "height" in x], [input_size])
        rule = choice.tiles
        if rule is None:
            logger.info("tiles=auto: the pictures are not cut; %s", choice.words())
            return sized
        logger.info("tiles=auto: %s", choice.words())
    found = [part for record in sized for part in cut_record(record, rule, min_visible)]
    logger.info(
        "Tiles of %d px, overlap %g: %d samples of %d images",
        rule.size,
        rule.overlap,
        len(found),
        len(sized),
    )
    return found


def _read(tiles: Any) -> tuple[Tiles | None, float]:
    """The rule, None for "auto", and the least visible share."""
    if isinstance(tiles, Tiles):
        return tiles, MIN_VISIBLE
    if tiles == AUTO:
        return None, MIN_VISIBLE
    if type(tiles) is int:
        return Tiles(size=tiles), MIN_VISIBLE
    if not isinstance(tiles, Mapping) or not set(tiles) <= set(_KEYS):
        raise ValueError(
            f"tiles {tiles!r}; allowed: a whole number, auto, or a mapping of {', '.join(_KEYS)}"
        )
    given = dict(tiles)
    min_visible = given.pop("min_visible", MIN_VISIBLE)
    require_number("tiles.min_visible", min_visible, 0, 1, above_low=True)
    return Tiles(**given), min_visible


def _with_size(record: Record) -> Record:
    if "height" in record and "width" in record:
        return record
    try:
        height, width = image_size(record["file_name"])
    except ImageError:  # the loader counts it, and takes another one
        return record
    return {**record, "height": height, "width": width}


def cut_record(record: Record, tiles: Tiles, min_visible: float) -> list[Record]:
    """The slices of a picture, as records; the picture itself where it is not cut.

    Slices without a box are evenly chosen, half as many as there are others, for most of a large
    picture shows nothing.
    """
    if "height" not in record:
        return [record]
    height, width = int(record["height"]), int(record["width"])
    places = slices(height, width, tiles)
    if len(places) == 1:
        return [record]
    boxes, annotations = boxes_of(record), record.get("annotations", [])
    parts = [
        record if (place[2:] - place[:2] == [width, height]).all()
        else _part(record, place, boxes, annotations, min_visible)
        for place in places
    ]  # fmt: skip
    shown = [i for i, part in enumerate(parts) if part.get("annotations")]
    empty = [i for i, part in enumerate(parts) if not part.get("annotations")]
    count = min(len(empty), max(1, round(_EMPTY * len(shown))))
    chosen = {empty[i * len(empty) // count] for i in range(count)} if empty else set()
    return [parts[i] for i in sorted(chosen.union(shown))]


def _part(
    record: Record,
    place: np.ndarray,
    boxes: np.ndarray,
    annotations: Sequence[Mapping[str, Any]],
    min_visible: float,
) -> Record:
    """A slice's record: boxes of which enough is visible, clipped; all that is seen of crowds."""
    low, high = np.maximum(boxes[:, :2], place[:2]), np.minimum(boxes[:, 2:], place[2:])
    sides = (high - low).clip(min=0)
    whole = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    share = sides.prod(axis=1) / np.maximum(whole, 1e-9)
    corners = np.concatenate([low - place[:2], high - place[:2]], axis=1)
    kept = [
        {**x, "bbox": corners[i].tolist(), "bbox_mode": BoxMode.XYXY_ABS}
        for i, x in enumerate(annotations)
        if share[i] >= (min_visible if not x.get("iscrowd", 0) else 1e-9)
    ]
    width, height = (int(v) for v in place[2:] - place[:2])
    return {
        **record,
        "height": height,
        "width": width,
        "tile": {"box": place.tolist(), "of": (int(record["height"]), int(record["width"]))},
        "annotations": kept,
    }


def whole_of(sample: Mapping[str, Any]) -> Record:
    """The record of the file that a slice is of; of any other record a copy."""
    tile = sample.get("tile")
    if tile is None:
        return dict(sample)
    height, width = tile["of"]
    return {**sample, "height": height, "width": width}
