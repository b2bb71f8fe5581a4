"""Reading the json files of tools that datumaro does not read: labelme, Label Studio, CreateML."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from nanodet_d2.runtime.files import IMAGE_SUFFIXES, relative_files

from ..files import Problems, listed_image_size
from ..readers.content import box_around
from .gathering import Box, Item, gather
from .writing import Part, Picture


class _Images:
    """Finds the images that files name, below a data set's folder."""

    def __init__(self, root: Path):
        self._root = Path(os.path.abspath(root))
        self._by_name: dict[str, list[Path]] = {}
        for relative in relative_files(str(root), IMAGE_SUFFIXES):
            self._by_name.setdefault(relative.name, []).append(self._root / relative)

    def find(self, name: str, beside: Path, problems: Problems) -> Path | None:
        """That beside a file, else the only one of its name."""
        name = name.replace("\\", "/")
        place = Path(os.path.abspath(beside.parent / name))
        if place.is_file() and self._root in place.parents:
            return place
        found = self._by_name.get(PurePosixPath(name).name, [])
        if len(found) == 1:
            return found[0]
        problems.add(f"images that are {'there twice' if found else 'missing'}, left out", name)
        return None


_Reader = Callable[[Path, Any, _Images, Problems], Iterator[Item]]


def read(folder: str, form: str | None) -> tuple[dict[str, Part], str, Problems] | None:
    """The splits of a data set, what its format is, and what was met.

    Args:
        folder: of the data set.
        form: one of ``FORMS``; found by itself if None.

    Returns:
        None if there is no such file.

    Raises:
        ValueError: if there are files of several of these formats.
    """
    root, problems = Path(folder), Problems()
    if not root.is_dir():
        return None
    found: dict[str, list[tuple[Path, Any]]] = {}
    for relative in relative_files(folder, [".json"]):
        content = _content(root / relative)
        for name, (is_of, _) in FORMS.items():
            if form in (None, name) and is_of(content):
                found.setdefault(name, []).append((relative, content))
    if not found:
        return None
    if len(found) > 1:
        raise ValueError(f"{folder} could be {', '.join(found)}: choose one with --from")
    ((name, files),) = found.items()
    images = _Images(root)
    items: dict[tuple[str, str], Item] = {}
    for relative, content in files:
        try:
            for item in FORMS[name][1](root / relative, content, images, problems):
                items.setdefault((item.subset, item.picture.path), item)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            what = f"files that are not as {name} writes them, left out or read in part"
            problems.add(what, f"{relative}: {type(error).__name__}: {error}")
    return gather(items.values(), problems), name, problems


def _content(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError):
        return None


def _first(content: Any) -> Mapping[str, Any]:
    """The first object of a list; an empty one for anything else."""
    listed = isinstance(content, list) and content and isinstance(content[0], Mapping)
    return content[0] if listed else {}


def _labelme(path: Path, content: Any, images: _Images, problems: Problems) -> Iterator[Item]:
    """A file for each image: points in pixels (https://github.com/wkentaro/labelme)."""
    image = images.find(content["imagePath"], path, problems)
    if image is None:
        return
    boxes = []
    for shape in content["shapes"]:
        kind, points = shape.get("shape_type") or "polygon", shape["points"]
        xs, ys = [float(x) for x, _ in points], [float(y) for _, y in points]
        if kind == "circle":  # its centre, and a point on it
            radius = math.dist(points[0], points[1])
            xs, ys = [xs[0] - radius, xs[0] + radius], [ys[0] - radius, ys[0] + radius]
        elif kind not in ("rectangle", "polygon", "mask", "oriented_rectangle"):
            problems.add(f"shapes of the kind {kind}, left out", str(path))
            continue
        if kind != "rectangle":
            problems.add(f"shapes of the kind {kind}, turned into their boxes", str(path))
        boxes.append(Box(str(shape["label"]), box_around(xs, ys)))
    yield Item(path.parent.name, Picture(image.name, str(image)), boxes)


def _label_studio(path: Path, content: Any, images: _Images, problems: Problems) -> Iterator[Item]:
    """A list of tasks: numbers in percent of the image's size (https://labelstud.io)."""
    for task in content:
        name = next(
            (x for x in map(_named, task["data"].values()) if x.lower().endswith(IMAGE_SUFFIXES)),
            "",
        )
        image = images.find(name, path, problems)
        size = None if image is None else listed_image_size(image, problems)
        if image is None or size is None:
            continue
        done = [x for x in task["annotations"] if not x.get("was_cancelled")]
        if len(done) > 1:
            problems.add("images that were annotated twice, of which the first counts", name)
        boxes = []
        for result in done[0]["result"] if done else ():
            kind = result["type"]
            labels = result["value"].get(kind)
            if kind not in ("rectanglelabels", "polygonlabels") or not labels:
                problems.add(f"results of the kind {kind}, left out", name)
                continue
            if kind == "polygonlabels" or result["value"].get("rotation"):
                problems.add("polygons and rotated boxes, turned into upright ones", name)
            boxes.append(Box(str(labels[0]), _around(result["value"], size)))
        yield Item(path.parent.name, Picture(image.name, str(image)), boxes)


def _named(value: Any) -> str:
    """The file that a task's address names: a path, or one in ``/data/local-files/?d=…``."""
    parts = urlsplit(str(value))
    return unquote(parse_qs(parts.query).get("d", [parts.path])[0])


def _around(value: Mapping[str, Any], size: tuple[int, int]) -> list[float]:
    """XYWH in pixels; boxes are rotated clockwise about their upper left corner."""
    unit_x, unit_y = size[1] / 100, size[0] / 100
    if "points" in value:
        xs, ys = zip(*value["points"])
        return box_around([float(x) * unit_x for x in xs], [float(y) * unit_y for y in ys])
    x, y, w, h = (float(value[key]) for key in ("x", "y", "width", "height"))
    angle = math.radians(float(value.get("rotation") or 0))
    cos, sin = math.cos(angle), math.sin(angle)
    x, y, w, h = x * unit_x, y * unit_y, w * unit_x, h * unit_y
    corners = [(x + a * cos - b * sin, y + a * sin + b * cos) for a in (0, w) for b in (0, h)]
    return box_around([x for x, _ in corners], [y for _, y in corners])


def _createml(path: Path, content: Any, images: _Images, problems: Problems) -> Iterator[Item]:
    """A list of images: boxes by their centre, in pixels."""
    for entry in content:
        image = images.find(entry["image"], path, problems)
        if image is None:
            continue
        boxes = []
        for annotation in entry["annotations"]:
            place = annotation["coordinates"]
            x, y, w, h = (float(place[key]) for key in ("x", "y", "width", "height"))
            boxes.append(Box(str(annotation["label"]), [x - w / 2, y - h / 2, w, h]))
        yield Item(path.parent.name, Picture(image.name, str(image)), boxes)


FORMS: dict[str, tuple[Callable[[Any], bool], _Reader]] = {
    "labelme": (lambda x: isinstance(x, Mapping) and {"shapes", "imagePath"} <= x.keys(), _labelme),
    "label_studio": (lambda x: {"data", "annotations"} <= _first(x).keys(), _label_studio),
    "createml": (lambda x: {"image", "annotations"} <= _first(x).keys(), _createml),
}
