"""COCO-format annotations as detectron2 data set dicts, with what is wrong in them counted.

detectron2's own reader keeps boxes without area, refuses ``ignore`` and tells of a missing image
only when training reaches it.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from detectron2.structures import BoxMode

from .files import Problems
from .paths import image_path, require_files
from .readers.coco_schema import is_crowd, is_key
from .readers.content import box_around

logger = logging.getLogger(__name__)

MIN_SIDE = 1.0  # pixels; the reference drops boxes that are narrower or lower
_TOO_SMALL = f"boxes narrower or lower than {MIN_SIDE:g} px, dropped"
_OUTSIDE = "boxes outside their image, dropped"
_BEYOND = "boxes reaching beyond their image, clipped"
_WRONG_SHARE = 0.2  # of a data set's boxes, which then are of another format
CLIP_TOLERANCE = 0.5  # pixels; files round their numbers, which is not worth a word


def categories_by_id(content: Mapping[str, Any], source: str) -> dict[int, str]:
    """Category id -> name of a COCO file's content, by ascending id (any order and gaps)."""
    categories = content["categories"]
    names = {entry["id"]: entry["name"] for entry in sorted(categories, key=lambda x: x["id"])}
    if len(names) < len(categories) or len(set(names.values())) < len(categories):
        raise ValueError(f"annotation file {source} has a category id or name twice")
    return names


def to_records(
    content: Mapping[str, Any],
    source: str,
    image_root: str,
    class_index: Mapping[int, int],
    *,
    allow_outside: bool = False,
) -> list[dict[str, Any]]:
    """Turn a COCO file's content into detectron2's data set dicts, by ascending image id.

    Images without boxes stay. Boxes are clipped to their image; those without area, narrower or
    lower than a pixel, not finite, or of an unknown image or category are dropped. What was
    changed is counted and logged once. ``iscrowd`` and ``ignore`` annotations are kept with
    ``iscrowd`` 1. An annotation without a box gets that around its polygons.

    Args:
        content: ``images``, ``annotations`` and ``categories``; ``problems`` met before, if any.
        source: where it is from, for messages.
        image_root: folder that the files' names are relative to.
        class_index: category id -> class in [0, C).
        allow_outside: names and links may lead out of ``image_root``.

    Returns:
        per image ``file_name``, ``image_id``, ``height``, ``width`` and ``annotations``, each
        with ``bbox`` (XYXY, pixels), ``bbox_mode``, ``category_id`` (the class) and ``iscrowd``.

    Raises:
        FileNotFoundError: for images that are not there; the message names them.
        ValueError: for an image id twice, or images outside ``image_root``.
    """
    problems = copy.deepcopy(content.get("problems", Problems()))
    records = _image_records(content["images"], source, image_root, allow_outside)
    paths = [record["file_name"] for record in records.values()]
    require_files(paths, image_root, source, allow_outside=allow_outside)
    add_annotations(records, content["annotations"], class_index, problems)
    if problems:
        logger.warning("%s: %s", source, problems)
    warn_of_wrong_boxes(problems, len(content["annotations"]), source)
    return [records[key] for key in sorted(records)]


def warn_of_wrong_boxes(problems: Problems, boxes: int, source: str) -> None:
    """Say what boxes look like of which many do not fit their images."""
    counts = {what: count for what, count, _ in problems}
    small, beyond = counts.get(_TOO_SMALL, 0), counts.get(_BEYOND, 0) + counts.get(_OUTSIDE, 0)
    for count, what, hint in (
        (small, "are smaller than a pixel", "are they shares of the image's size, and not pixels"),
        (
            beyond,
            "reach beyond their image",
            "are they x1, y1, x2, y2, and not x, y, width, height",
        ),
    ):
        if count > _WRONG_SHARE * boxes:
            logger.warning(
                "%s: %.0f %% of the boxes %s: %s? COCO's are x, y, width, height in pixels; "
                "nanodet-d2 data info shows them",
                source,
                100 * count / boxes,
                what,
                hint,
            )


def _image_records(
    images: Sequence[Mapping[str, Any]], source: str, image_root: str, allow_outside: bool
) -> dict[Any, dict[str, Any]]:
    records: dict[Any, dict[str, Any]] = {}
    for i, image in enumerate(images):
        if image["id"] in records:
            raise ValueError(f"annotation file {source} has the image id {image['id']} twice")
        try:
            path = image_path(image_root, image["file_name"], allow_outside=allow_outside)
        except ValueError as error:
            raise ValueError(f"annotation file {source}: images[{i}]: {error}") from error
        records[image["id"]] = {
            "file_name": path,
            "image_id": image["id"],
            "height": int(image["height"]),
            "width": int(image["width"]),
            "annotations": [],
        }
    return records


def add_annotations(
    records: Mapping[Any, dict[str, Any]],
    annotations: Sequence[Any],
    class_index: Mapping[Any, int],
    problems: Problems,
) -> None:
    """Add COCO annotations to the records of their images; what is wrong goes to ``problems``.

    Args:
        records: image id -> data set dict.
        class_index: category id -> class in [0, C).
    """
    for i, annotation in enumerate(annotations):
        if not isinstance(annotation, Mapping):
            problems.add("annotations that are no objects, dropped", f"annotations[{i}]")
            continue
        where = f"annotation {annotation.get('id', f'number {i}')}"
        category, image = annotation.get("category_id"), annotation.get("image_id")
        if not is_key(category) or category not in class_index:
            problems.add("annotations of an unknown category, dropped", f"{where}: {category}")
            continue
        record = records.get(image) if is_key(image) else None
        if record is None:
            problems.add("annotations of an unknown image, dropped", where)
            continue
        size = record["width"], record["height"]
        box = _clean_box(_box(annotation, problems, where), *size, problems, where)
        if box is None:
            continue
        area = annotation.get("area")
        if isinstance(area, (int, float)) and area <= 0:
            problems.add("annotations of area 0, dropped", where)
            continue
        record["annotations"].append(
            {
                "bbox": box,
                "bbox_mode": BoxMode.XYXY_ABS,
                "category_id": class_index[category],
                "iscrowd": int(is_crowd(annotation)),
            }
        )


def _box(annotation: Mapping[str, Any], problems: Problems, where: str) -> Any:
    """``bbox`` as it is written; where there is none, the box around the polygons, if any."""
    box, polygons = annotation.get("bbox"), annotation.get("segmentation")
    if box not in (None, []) or not isinstance(polygons, list) or not polygons:
        return box
    try:
        numbers = [float(x) for polygon in polygons for x in polygon]
    except (TypeError, ValueError, OverflowError):
        return box
    if any(len(polygon) < 6 or len(polygon) % 2 for polygon in polygons):
        return box
    problems.add("annotations without a box, which get that around their polygons", where)
    return box_around(numbers[0::2], numbers[1::2])


def _clean_box(
    xywh: Any, width: int, height: int, problems: Problems, where: str
) -> list[float] | None:
    """XYXY clipped to the image, or None where nothing is left."""
    try:
        if not isinstance(xywh, (list, tuple)):
            raise TypeError
        x, y, w, h = (float(v) for v in xywh)
    except (TypeError, ValueError, OverflowError):
        problems.add("boxes that are not four numbers, dropped", where)
        return None
    if not np.isfinite([x, y, w, h]).all():
        problems.add("boxes that are not finite, dropped", where)
        return None
    if w < MIN_SIDE or h < MIN_SIDE:
        problems.add(_TOO_SMALL, where)
        return None
    box = [max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height))]
    if box[2] <= box[0] or box[3] <= box[1]:
        problems.add(_OUTSIDE, where)
        return None
    if max(abs(a - b) for a, b in zip(box, (x, y, x + w, y + h))) > CLIP_TOLERANCE:
        problems.add(_BEYOND, where)
    return box
