"""COCO-format annotations as detectron2 data set dicts, with what is wrong in them counted.

detectron2's own reader keeps boxes without area, refuses ``ignore`` and tells of a missing image
only when training reaches it.
"""

from __future__ import annotations

import copy
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager

from .files import Problems

logger = logging.getLogger(__name__)

MIN_SIDE = 1.0  # pixels; the reference drops boxes that are narrower or lower
CLIP_TOLERANCE = 0.5  # pixels; files round their numbers, which is not worth a word
_LISTS = ("images", "annotations", "categories")


def read_coco_json(json_file: str) -> dict[str, list[dict[str, Any]]]:
    """The content of a COCO detection file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not COCO; the message says what was found.
    """
    path = PathManager.get_local_path(json_file)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"annotation file {json_file} not found")
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"annotation file {json_file} is not valid json: {error}") from error
    keys = sorted(content) if isinstance(content, dict) else type(content).__name__
    if not isinstance(content, dict) or any(not isinstance(content.get(k), list) for k in _LISTS):
        raise ValueError(
            f"annotation file {json_file} is not COCO: found {keys}, "
            f"needed: an object with the lists {', '.join(_LISTS)}"
        )
    for name, fields in (
        ("images", ("id", "file_name", "width", "height")),
        ("categories", ("id", "name")),
    ):
        for entry in content[name]:
            missing = [field for field in fields if field not in entry]
            if missing:
                raise ValueError(
                    f"annotation file {json_file}: {name} entry {entry} lacks {missing}"
                )
    if not content["categories"]:
        raise ValueError(f"annotation file {json_file} has no categories; needed: one or more")
    return content


def categories_by_id(content: Mapping[str, Any], source: str) -> dict[int, str]:
    """Category id -> name of a COCO file's content, by ascending id (any order and gaps)."""
    categories = content["categories"]
    names = {entry["id"]: entry["name"] for entry in sorted(categories, key=lambda x: x["id"])}
    if len(names) < len(categories) or len(set(names.values())) < len(categories):
        raise ValueError(f"annotation file {source} has a category id or name twice")
    return names


def to_records(
    content: Mapping[str, Any], source: str, image_root: str, class_index: Mapping[int, int]
) -> list[dict[str, Any]]:
    """Turn a COCO file's content into detectron2's data set dicts, by ascending image id.

    Images without boxes stay. Boxes are clipped to their image; those without area, narrower or
    lower than a pixel, not finite, or of an unknown image or category are dropped. What was
    changed is counted and logged once. ``iscrowd`` and ``ignore`` annotations are kept with
    ``iscrowd`` 1.

    Args:
        content: ``images``, ``annotations`` and ``categories``; ``problems`` met before, if any.
        source: where it is from, for messages.
        image_root: folder that the files' names are relative to.
        class_index: category id -> class in [0, C).

    Returns:
        per image ``file_name``, ``image_id``, ``height``, ``width`` and ``annotations``, each
        with ``bbox`` (XYXY, pixels), ``bbox_mode``, ``category_id`` (the class) and ``iscrowd``.

    Raises:
        FileNotFoundError: for images that are not there; the message names them.
        ValueError: for an image id twice.
    """
    problems = copy.deepcopy(content.get("problems", Problems()))
    records = _image_records(content["images"], source, image_root)
    for annotation in content["annotations"]:
        where = f"annotation {annotation.get('id')}"
        category = annotation.get("category_id")
        if category not in class_index:
            problems.add("annotations of an unknown category, dropped", f"{where}: {category}")
            continue
        record = records.get(annotation.get("image_id"))
        if record is None:
            problems.add("annotations of an unknown image, dropped", where)
            continue
        size = record["width"], record["height"]
        box = _clean_box(annotation.get("bbox"), *size, problems, where)
        if box is not None and annotation.get("area", 1) > 0:
            crowd = bool(annotation.get("iscrowd", 0)) or bool(annotation.get("ignore", 0))
            record["annotations"].append(
                {
                    "bbox": box,
                    "bbox_mode": BoxMode.XYXY_ABS,
                    "category_id": class_index[category],
                    "iscrowd": int(crowd),
                }
            )
    if problems:
        logger.warning("%s: %s", source, problems)
    return [records[key] for key in sorted(records)]


def _image_records(
    images: Sequence[Mapping[str, Any]], json_file: str, image_root: str
) -> dict[Any, dict[str, Any]]:
    records: dict[Any, dict[str, Any]] = {}
    for image in images:
        if image["id"] in records:
            raise ValueError(f"annotation file {json_file} has the image id {image['id']} twice")
        records[image["id"]] = {
            "file_name": os.path.join(image_root, image["file_name"]),
            "image_id": image["id"],
            "height": image["height"],
            "width": image["width"],
            "annotations": [],
        }
    _require_files([record["file_name"] for record in records.values()], json_file)
    return records


def _require_files(paths: Sequence[str], json_file: str) -> None:
    """Raise unless every local path exists; lists each folder once, which is fast on any disk."""
    folders: dict[str, set[str]] = {}
    missing = []
    for path in paths:
        folder, name = os.path.split(path)
        if "://" in folder:
            continue  # not local: found out when it is read
        if folder not in folders:
            folders[folder] = set(os.listdir(folder)) if os.path.isdir(folder) else set()
        if name not in folders[folder]:
            missing.append(path)
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of the {len(paths)} images of {json_file} are missing, "
            f"the first: {', '.join(missing[:3])}"
        )


def _clean_box(
    xywh: Any, width: int, height: int, problems: Problems, where: str
) -> list[float] | None:
    """XYXY clipped to the image, or None where nothing is left."""
    try:
        x, y, w, h = (float(v) for v in xywh)
    except (TypeError, ValueError):
        problems.add("boxes that are not four numbers, dropped", where)
        return None
    if not np.isfinite([x, y, w, h]).all():
        problems.add("boxes that are not finite, dropped", where)
        return None
    if w < MIN_SIDE or h < MIN_SIDE:
        problems.add(f"boxes narrower or lower than {MIN_SIDE:g} px, dropped", where)
        return None
    box = [max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height))]
    if box[2] <= box[0] or box[3] <= box[1]:
        problems.add("boxes outside their image, dropped", where)
        return None
    if max(abs(a - b) for a, b in zip(box, (x, y, x + w, y + h))) > CLIP_TOLERANCE:
        problems.add("boxes reaching beyond their image, clipped", where)
    return box
