"""Writing the splits of a data set as COCO files with their images: whole, or not at all."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from ..files import Problems
from ..readers.coco_schema import is_crowd
from ..readers.content import box_around


class Picture(NamedTuple):
    """An image to write.

    Attributes:
        name: to give it; unused if there is a path.
        path: of its file; empty if it is none, but part of another.
        pixels: makes (H, W, 3) BGR, where there is no path.
    """

    name: str
    path: str = ""
    pixels: Callable[[], np.ndarray] | None = None


class Part(NamedTuple):
    """A split to write: a COCO content, and the pictures of its images in the same order."""

    content: Mapping[str, Any]
    pictures: Sequence[Picture]


def require_new(folder: Path) -> None:
    """Raise ``ValueError`` unless there is no such folder, or an empty one."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ValueError(f"{folder} is there already; nothing is overwritten")


def write_coco(
    folder: Path, parts: Mapping[str, Part], problems: Problems, *, copy: bool = False
) -> dict[str, dict[str, int]]:
    """Write ``annotations/instances_SPLIT.json``, and the images into a folder SPLIT.

    Args:
        folder: must not be there, or be empty; where this fails it stays so.
        parts: by the names of splits.
        problems: gets the annotations that COCO cannot hold.
        copy: the images; else they are hard links where the disk allows it, which take no room.

    Returns:
        numbers of images and boxes by split.

    Raises:
        ValueError: if there is something in the folder.
    """
    require_new(folder)
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        (unfinished / "annotations").mkdir(parents=True)
        counts = {}
        for split, part in parts.items():
            content = _content(part, problems)
            _write_pictures(unfinished / split, part.pictures, content, copy=copy)
            text = json.dumps(content, ensure_ascii=False, allow_nan=False)
            path = unfinished / "annotations" / f"instances_{split}.json"
            path.write_text(text, encoding="utf-8")
            counts[split] = {key: len(content[key]) for key in ("images", "annotations")}
        unfinished.rename(folder)  # an empty folder gives way
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return counts


def _content(part: Part, problems: Problems) -> dict[str, Any]:
    """What is written to a file, with the images' new names."""
    names = _names(part.pictures)
    images = [
        {"id": x["id"], "file_name": name, "width": int(x["width"]), "height": int(x["height"])}
        for x, name in zip(part.content["images"], names)
    ]
    annotations: list[dict[str, Any]] = []
    for i, raw in enumerate(part.content["annotations"]):
        kept = _annotation(raw)
        if kept is None:
            problems.add("annotations without a box of numbers, left out", f"annotations[{i}]")
        else:
            annotations.append({"id": len(annotations) + 1, **kept})
    categories = [{"id": x["id"], "name": x["name"]} for x in part.content["categories"]]
    return {"images": images, "annotations": annotations, "categories": categories}


def _annotation(raw: Any) -> dict[str, Any] | None:
    """An annotation as any tool reads it; boxes stay as they are, polygons are kept."""
    if not isinstance(raw, Mapping) or not {"image_id", "category_id"} <= raw.keys():
        return None
    try:
        polygons = raw.get("segmentation") or []
        polygons = [[float(x) for x in points] for points in polygons]
    except (TypeError, ValueError, OverflowError):  # a mask, say
        polygons = []
    if not all(math.isfinite(x) for points in polygons for x in points):
        polygons = []
    try:
        box = [float(x) for x in raw.get("bbox") or ()]
        area = float(raw.get("area") or math.nan)
    except (TypeError, ValueError, OverflowError):
        return None
    if not box and polygons:
        numbers = [x for points in polygons for x in points]
        box = box_around(numbers[0::2], numbers[1::2])
    if len(box) != 4 or not all(map(math.isfinite, box)):
        return None
    return {
        "image_id": raw["image_id"],
        "category_id": raw["category_id"],
        "bbox": box,
        "area": area if math.isfinite(area) else box[2] * box[3],
        "iscrowd": int(is_crowd(raw)),
        **({"segmentation": polygons} if polygons else {}),
    }


def _names(pictures: Sequence[Picture]) -> list[str]:
    """Paths below a split's folder: as they were, without the folders that all have in common."""
    paths = [os.path.abspath(x.path or x.name) for x in pictures]
    if not paths:
        return []
    top = os.path.commonpath([os.path.dirname(path) for path in paths])
    return [Path(os.path.relpath(path, top)).as_posix() for path in paths]


def _write_pictures(
    folder: Path, pictures: Sequence[Picture], content: Mapping[str, Any], *, copy: bool
) -> None:
    folder.mkdir()
    for picture, image in zip(pictures, content["images"]):
        target = folder / image["file_name"]
        if target.exists():  # of two entries of one image
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if picture.pixels is not None:
            done, data = cv2.imencode(".png", picture.pixels())
            assert done
            target.write_bytes(data.tobytes())
            continue
        source = os.path.realpath(picture.path)
        try:
            if copy:
                raise OSError
            os.link(source, target)
        except OSError:  # another disk, or one that has no links
            shutil.copyfile(source, target)
