"""What is wrong with a split's annotations, and what its boxes are like."""

from __future__ import annotations

import collections
import copy
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from nanodet_d2.data.files import Problems
from nanodet_d2.data.paths import files_outside, image_path, missing_files
from nanodet_d2.data.records import add_annotations

STRIDES = (8, 16, 32, 64)  # of the network's levels
ASPECTS = (0.25, 0.5, 1.0, 2.0, 4.0)  # limits of the histogram of width / height
_SMALL_SHARE = 0.02  # of boxes below the finest stride, from which on it is worth a word
_RARE = 10  # boxes of a class in train
_IMBALANCE = 100  # times as many boxes of one class as of another


@dataclasses.dataclass
class Split:
    """A split and what was found in it."""

    name: str  # "train" or "val"
    source: str
    records: dict[Any, dict[str, Any]]  # image id -> detectron2's data set dict
    classes: list[str]
    problems: Problems = dataclasses.field(default_factory=Problems)
    notes: list[str] = dataclasses.field(default_factory=list)
    figures: dict[str, Any] = dataclasses.field(default_factory=dict)
    missing: set[str] = dataclasses.field(default_factory=set)  # paths
    broken: dict[str, str] = dataclasses.field(default_factory=dict)  # path -> why
    sizes: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))  # see _shapes
    aspects: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))


def examine_annotations(
    name: str,
    content: Mapping[str, Any],
    source: str,
    image_root: str,
    *,
    input_size: Sequence[int],
    strides: Sequence[int] = STRIDES,
    allow_outside: bool = False,
) -> Split:
    """Check a split without opening its images.

    Args:
        name: "train" or "val".
        content: of a COCO file, or of a reader of another format.
        source: the annotations' path, for messages.
        image_root: folder of the images; empty if the content has whole paths.
        input_size: (height, width) of the network's input, which images are stretched to.
        strides: of the network's levels.
        allow_outside: images may lie outside ``image_root``.
    """
    problems = copy.deepcopy(content.get("problems", Problems()))
    categories = _unique(content["categories"], "id", "category ids", problems)
    _unique(content["categories"], "name", "category names", problems)
    index = {key: i for i, key in enumerate(sorted(categories))}
    records = _records(content["images"], image_root, allow_outside or not image_root, problems)
    annotations = [x for x in content["annotations"] if isinstance(x, Mapping)]
    _unique([x for x in annotations if "id" in x], "id", "annotation ids", problems)
    add_annotations(records, content["annotations"], index, problems)

    split = Split(name, source, records, [categories[key]["name"] for key in index], problems)
    paths = [record["file_name"] for record in records.values()]
    split.missing = missing_files([path for path in paths if "://" not in path])
    for path in sorted(split.missing):
        problems.add("images that are missing", path)
    if image_root and not allow_outside:
        for path in files_outside([x for x in paths if x not in split.missing], image_root):
            problems.add("links that lead out of the image folder", path)
    _describe(split, input_size, strides)
    return split


def _unique(
    entries: Sequence[Mapping[str, Any]], key: str, what: str, problems: Problems
) -> dict[Any, Mapping[str, Any]]:
    """The entries by a key; the first of each value counts."""
    found: dict[Any, Mapping[str, Any]] = {}
    for entry in entries:
        value = entry[key] if isinstance(entry[key], (int, float, str)) else repr(entry[key])
        if value in found:
            problems.add(f"{what} that are there twice", str(value))
        found.setdefault(value, entry)
    return found


def _records(
    images: Sequence[Mapping[str, Any]], root: str, allow_outside: bool, problems: Problems
) -> dict[Any, dict[str, Any]]:
    records = {}
    _unique(images, "file_name", "image files", problems)
    for key, image in _unique(images, "id", "image ids", problems).items():
        try:
            path = image_path(root, image["file_name"], allow_outside=allow_outside)
        except ValueError:
            problems.add("images outside the image folder", image["file_name"])
            continue
        size = {name: int(image[name]) for name in ("height", "width")}
        records[key] = {"file_name": path, "image_id": key, **size, "annotations": []}
    return records


def _describe(split: Split, input_size: Sequence[int], strides: Sequence[int]) -> None:
    """Fill in figures and notes."""
    boxes: collections.Counter[int] = collections.Counter()
    images: collections.Counter[int] = collections.Counter()
    crowd = empty = twice = 0
    for record in split.records.values():
        objects = [x for x in record["annotations"] if not x["iscrowd"]]
        crowd += len(record["annotations"]) - len(objects)
        empty += not objects
        boxes.update(x["category_id"] for x in objects)
        images.update({x["category_id"] for x in objects})
        twice += len(objects) - len({(x["category_id"], *x["bbox"]) for x in objects})
    total = sum(boxes.values())
    split.sizes, split.aspects = _shapes(split.records.values(), input_size)
    small = float((split.sizes < min(strides)).mean()) if total else 0.0
    split.figures = {
        "images": len(split.records),
        "images_without_boxes": empty,
        "boxes": total,
        "crowd_share": crowd / max(total + crowd, 1),
        "boxes_twice": twice,
        "classes": {
            name: {"boxes": boxes[i], "images": images[i]} for i, name in enumerate(split.classes)
        },
        "input_size": list(input_size),
        "sizes": _histogram(split.sizes, _size_limits(strides)),
        "aspects": _histogram(split.aspects, ASPECTS),
        "share_below_finest_stride": small,
    }
    _judge(split, boxes, strides)


def _judge(split: Split, boxes: collections.Counter[int], strides: Sequence[int]) -> None:
    figures, notes = split.figures, split.notes
    unused = [name for i, name in enumerate(split.classes) if not boxes[i]]
    if unused and split.name == "train":
        split.problems.add("categories without a box in train", unused[0], len(unused))
    elif unused:
        notes.append(f"{len(unused)} categories have no box: {', '.join(unused[:5])}")
    used = [(boxes[i], name) for i, name in enumerate(split.classes) if boxes[i]]
    if used and split.name == "train" and max(used)[0] > _IMBALANCE * min(used)[0]:
        (most, first), (least, last) = max(used), min(used)
        notes.append(
            f"{first} has {most} boxes, {last} {least}: dataloader.train.repeat_threshold shows "
            "images of rare classes more often"
        )
    rare = [name for count, name in used if count < _RARE]
    if rare and split.name == "train":
        notes.append(f"{len(rare)} categories have fewer than {_RARE} boxes: {', '.join(rare[:5])}")
    if figures["boxes_twice"]:
        notes.append(f"{figures['boxes_twice']} boxes are there twice, with the same class")
    if figures["share_below_finest_stride"] > _SMALL_SHARE:
        height, width = figures["input_size"]
        notes.append(
            f"{100 * figures['share_below_finest_stride']:.1f} % of the boxes are smaller than the "
            f"finest stride, {min(strides)} px, at {height} x {width}, and hard to find: a larger "
            "data.input_size helps"
        )
    if not used:
        split.problems.add("splits without a single box", split.source)


def _shapes(
    records: Iterable[Mapping[str, Any]], input_size: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Per object box: root of its area in pixels of the network's input; its width / height."""
    rows = [
        (*x["bbox"], record["height"], record["width"])
        for record in records
        for x in record["annotations"]
        if not x["iscrowd"]
    ]
    x1, y1, x2, y2, height, width = np.array(rows, dtype=np.float64).reshape(-1, 6).T
    w, h = (x2 - x1) * input_size[1] / width, (y2 - y1) * input_size[0] / height
    return np.sqrt(w * h), (x2 - x1) / (y2 - y1)


def _size_limits(strides: Sequence[int]) -> list[float]:
    return [*sorted(strides), 2 * max(strides), 4 * max(strides)]


def _histogram(values: np.ndarray, limits: Sequence[float]) -> dict[str, int]:
    """Counts by range; a value that is a limit belongs to the range above it."""
    counts = np.bincount(np.searchsorted(limits, values, side="right"), minlength=len(limits) + 1)
    names = [f"below {limits[0]:g}"]
    names += [f"{low:g} to {high:g}" for low, high in zip(limits, limits[1:])]
    return dict(zip([*names, f"{limits[-1]:g} and more"], counts.tolist()))
