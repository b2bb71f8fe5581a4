"""A small, seeded detection set in COCO format: shapes and printed glyphs among clutter.

The same parameters give the same bytes (with one OpenCV build), and a picture depends on (seed,
split, index) alone. Boxes are the *full* extent of an object's own ink (not of the label it may be
printed on), clipped to the image, as if nothing lay on top. An object is placed only where 40 % of
it, and of all beneath it, stay in view: none goes unannotated.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import cv2

from .shapes import CLASS_NAMES, SPLITS, DrawnObject, box_of, draw_picture

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1  # raise it when the pictures change, so that existing sets are made again
DESCRIPTION = "nanodet_d2 synthetic shapes and glyphs"
# Gaps, no 1, not in order: a reader that takes an id for a class index fails at once.
CATEGORY_IDS = dict(zip(CLASS_NAMES, (11, 3, 7, 24, 18, 90, 41)))
ALLOWED = {  # arguments of make_shapes_dataset, both ends included
    "num_train": (1, 999_999), "num_val": (1, 999_999), "image_size": (64, 2048),
    "seed": (0, 2**63 - 1),
}  # fmt: skip


def coco_record(
    name: str, image_id: int, size: int, objects: list[DrawnObject], first: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """One picture's COCO image entry and annotations (ids from `first` on)."""
    annotations = []
    for k, item in enumerate(objects):
        x0, y0, x1, y1 = box_of(item.full).tolist()
        annotations.append(
            {"id": first + k, "image_id": image_id, "category_id": CATEGORY_IDS[item.name],
             "bbox": [float(x0), float(y0), float(x1 - x0), float(y1 - y0)],
             "area": float(item.visible.sum()), "iscrowd": 0}
        )  # fmt: skip
    return {"id": image_id, "file_name": name, "width": size, "height": size}, annotations


def write_json(path: Path, content: dict) -> None:
    """Writes a file whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content))
    os.replace(part, path)


def _paths(root: Path, split: str) -> dict[str, str]:
    annotations = root / "annotations" / f"instances_{split}.json"
    return {"json": str(annotations), "images": str(root / split)}


def _fingerprint(root: Path, split: str, count: int) -> list:
    """What tells a whole split from a damaged one: the json's hash, the images' bytes together."""
    paths = _paths(root, split)
    images = [Path(paths["images"]) / _file_name(i) for i in range(count)]
    digest = hashlib.sha256(Path(paths["json"]).read_bytes()).hexdigest()
    return [digest, sum(path.stat().st_size for path in images)]


def _file_name(index: int) -> str:
    return f"shapes_{index:06d}.jpg"


def _read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _is_ours(content: dict) -> bool:
    """Whether a meta.json or a COCO json was made here."""
    info = content.get("info", content)
    return isinstance(info, dict) and info.get("description") == DESCRIPTION


def _is_complete(root: Path, meta: dict) -> bool:
    found = _read_json(root / "meta.json")
    if {key: found.get(key) for key in meta} != meta:
        return False
    try:
        now = {split: _fingerprint(root, split, meta[f"num_{split}"]) for split in SPLITS}
    except OSError:
        return False
    return found.get("fingerprints") == now


def _clear(root: Path) -> None:
    """Removes an earlier set, and nothing but our own files.

    Raises:
        ValueError: If a file to be replaced was not made here.
    """
    meta, jsons = root / "meta.json", [Path(_paths(root, split)["json"]) for split in SPLITS]
    ours = _is_ours(_read_json(meta))
    for path in [meta, *jsons]:
        content = _read_json(path)  # empty where it is damaged
        made_here = _is_ours(content) if content else ours
        if path.exists() and not made_here:
            raise ValueError(
                f"{path} exists and was not made by make_shapes_dataset; "
                "root must be a new or empty folder, or one that holds an earlier set of its own"
            )
    for path in [*jsons, *(p for split in SPLITS for p in (root / split).glob("shapes_*.jpg"))]:
        path.unlink(missing_ok=True)
    meta.unlink(missing_ok=True)  # last: until then it says that all this is ours


class _Progress:
    """Logs a count and the time left, every three seconds."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        self.start = self.last = time.monotonic()

    def step(self) -> None:
        self.done, now = self.done + 1, time.monotonic()
        if now - self.last >= 3 and self.done < self.total:
            self.last, left = now, (now - self.start) * (self.total / self.done - 1)
            logger.info("drawn %d of %d images, ETA %.0f s", self.done, self.total, left)


def _write_split(
    root: Path, split: str, count: int, size: int, seed: int, progress: _Progress
) -> None:
    paths = _paths(root, split)
    Path(paths["images"]).mkdir(parents=True, exist_ok=True)
    Path(paths["json"]).parent.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(count):
        pixels, objects = draw_picture(seed, split, index, size)
        path = Path(paths["images"]) / _file_name(index)
        if not cv2.imwrite(str(path), pixels, [cv2.IMWRITE_JPEG_QUALITY, 92]):
            raise OSError(f"could not write {path}")
        record, boxes = coco_record(path.name, index + 1, size, objects, len(annotations) + 1)
        images.append(record)
        annotations.extend(boxes)
        progress.step()
    categories = [{"id": i, "name": name} for name, i in CATEGORY_IDS.items()]
    info = {"description": DESCRIPTION, "version": str(FORMAT_VERSION), "split": split}
    content = {"info": info, "licenses": [], "categories": categories}
    write_json(Path(paths["json"]), content | {"images": images, "annotations": annotations})


def make_shapes_dataset(
    root: str | Path,
    *,
    num_train: int = 600,
    num_val: int = 150,
    image_size: int = 160,
    seed: int = 0,
) -> dict[str, dict[str, str]]:
    """Writes the data set under `root`, unless a complete one of these parameters is there.

    Args:
        root: A new folder, or one with an earlier set, which is replaced if it differs.
        num_train: Images in `root/train`; a longer split starts with a shorter one's images.
        num_val: Images in `root/val`.
        image_size: Width and height in pixels; the objects grow with it.
        seed: Any integer from 0.

    Returns:
        For "train" and "val", the path of the annotations ("json") and the folder ("images").

    Raises:
        ValueError: If an argument is out of range, or `root` holds another data set.
    """
    root = Path(root)
    counts = {"train": num_train, "val": num_val}
    parameters = {"num_train": num_train, "num_val": num_val, "image_size": image_size}
    parameters["seed"] = seed
    for name, value in parameters.items():
        low, high = ALLOWED[name]
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"{name} is {value!r}, must be an integer from {low} to {high}")
    meta = {"description": DESCRIPTION, "format_version": FORMAT_VERSION, **parameters}
    result = {split: _paths(root, split) for split in SPLITS}
    if _is_complete(root, meta):
        logger.info("%s already holds this data set", root)
        return result
    _clear(root)
    logger.info("drawing %d training and %d validation images in %s", num_train, num_val, root)
    progress = _Progress(num_train + num_val)
    for split, count in counts.items():
        _write_split(root, split, count, image_size, seed, progress)
    prints = {split: _fingerprint(root, split, count) for split, count in counts.items()}
    write_json(root / "meta.json", meta | {"fingerprints": prints})  # last: it marks the set whole
    logger.info("wrote the data set in %.1f s", time.monotonic() - progress.start)
    return result
