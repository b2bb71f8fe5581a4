"""Data sets that are registered in detectron2, by its own code or by a user's."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from nanodet_d2.runtime.images import ImageError

from .files import Problems
from .images import image_size


def import_user_code(data: Mapping[str, Any] | None) -> None:
    """Import the modules of ``data.imports``: code that registers data sets, or what it likes.

    Raises:
        ValueError: if one cannot be imported.
    """
    for name in (data or {}).get("imports") or ():
        try:
            importlib.import_module(name)
        except Exception as error:  # it is anybody's code
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise ValueError(
                f"data.imports: {name} cannot be imported ({reason}). It is looked for among the "
                "installed packages and in the folders of PYTHONPATH, e.g. with PYTHONPATH=. in "
                "front of the command"
            ) from error


def registered_classes(name: str) -> list[str]:
    """Its ``thing_classes``.

    Raises:
        ValueError: if there is no such data set, or it cannot be read, or tells no classes.
    """
    if name not in DatasetCatalog:
        close = ", ".join(difflib.get_close_matches(name, DatasetCatalog.list(), n=3))
        raise ValueError(
            f"data set {name!r} is not registered in detectron2; close: {close or 'none'}. The "
            "code that registers it is found if data.imports lists its module: "
            "data.imports=[my_package.datasets]"
        )
    if not hasattr(MetadataCatalog.get(name), "thing_classes"):
        with _named(name):
            DatasetCatalog.get(name)  # some tell their classes only when they are read
    classes = getattr(MetadataCatalog.get(name), "thing_classes", None)
    if not classes:
        raise ValueError(f"data set {name!r} has no thing_classes in its metadata")
    return list(classes)


def registered_content(name: str, classes: Sequence[str]) -> dict[str, Any]:
    """What it holds as the content of a COCO file, before anything in it is repaired.

    Raises:
        ValueError: if it cannot be read.
    """
    categories = [{"id": i, "name": x} for i, x in enumerate(classes)]
    images, annotations, problems = [], [], Problems()
    with _named(name):
        for record in DatasetCatalog.get(name):
            path = record["file_name"]
            key = record.get("image_id", path)
            height, width = _registered_size(record, problems)
            images.append({"id": key, "file_name": path, "height": height, "width": width})
            if height and width:
                annotations += [_as_coco(x, key) for x in record.get("annotations", [])]
    return {
        "images": images,
        "annotations": annotations,
        "categories": categories,
        "problems": problems,
    }


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Name the data set in whatever it makes fail: a registered one is anybody's code."""
    try:
        yield
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"data set {name!r} cannot be read: {reason}") from error


def _registered_size(record: Mapping[str, Any], problems: Problems) -> tuple[int, int]:
    """(height, width) of a record, (0, 0) where nothing tells them."""
    if record.get("height") is not None and record.get("width") is not None:
        return int(record["height"]), int(record["width"])
    try:
        return image_size(record["file_name"])
    except ImageError as error:
        what = "images of unknown size that cannot be read, boxes not checked"
        problems.add(what, f"{error.path}: {error.reason}")
        return 0, 0


def _as_coco(annotation: Mapping[str, Any], image_id: Any) -> dict[str, Any]:
    """An annotation of a record; what it lacks is None."""
    box = annotation.get("bbox")
    if box is not None:
        mode = annotation.get("bbox_mode", BoxMode.XYXY_ABS)  # as the mapper takes it
        box = BoxMode.convert(list(box), mode, BoxMode.XYWH_ABS)
    return {
        "image_id": image_id,
        "category_id": annotation.get("category_id"),
        "bbox": box,
        "iscrowd": annotation.get("iscrowd", 0),
    }
