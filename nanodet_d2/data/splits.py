"""The ``data`` section of a config: which data set each split uses, and its classes.

A split is one of these, and ``images``, the folder of its images:

- ``json``: a COCO file,
- ``voc``: a folder of Pascal VOC's XML files,
- ``yolo``: a folder of YOLO's text files, whose class names ``data.classes`` lists,

or else ``name``, a data set that is registered in detectron2.

``allow_outside`` lets the files name images outside that folder.
"""

from __future__ import annotations

import difflib
import functools
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Callable, NamedTuple

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from detectron2.utils.colormap import colormap

from nanodet_d2.runtime.images import ImageError

from .coco import categories_by_id, read_coco_json, to_records
from .coco_schema import is_evaluable
from .files import Problems
from .images import image_size
from .voc import read_voc
from .yolo import read_yolo

_PALETTE = [tuple(map(int, color)) for color in colormap(rgb=True, maximum=255)]


def num_classes(data: Mapping[str, Any]) -> int:
    """Number of classes of the ``data`` section."""
    return len(class_names(data))


def class_names(data: Mapping[str, Any]) -> list[str]:
    """Classes in the model's order.

    Those of ``data.classes``, else of the first split that is given as files, else of train's
    registered data set.
    """
    if data.get("classes"):
        return list(data["classes"])
    for split in ("train", "val"):
        source = _source(data, split)
        if source is not None:
            return list(_categories(source).values())
    return _registered_classes(data["train"]["name"])


def split_name(data: Mapping[str, Any], split: str) -> str:
    """Name of the split's data set in detectron2's catalog, registered first if it is files.

    Args:
        data: the ``data`` section of a config.
        split: "train" or "val".

    Raises:
        ValueError: if images or name are missing or unknown, or if the split's classes are not
            those of :func:`class_names`; the order of ids may differ.
    """
    source = _source(data, split)
    if source is None:
        name = data[split]["name"]
        _require_same_classes(_registered_classes(name), data, split)
        return name
    _require_images(source, split)
    return _register(source, data, split)


def _require_images(source: _Source, split: str) -> None:
    if not source.images:
        raise ValueError(
            f"data.{split}.{source.form} needs data.{split}.images, the folder of its images"
        )


def split_content(data: Mapping[str, Any], split: str) -> tuple[dict[str, Any], str, str]:
    """A split as it is, before anything in it is repaired.

    Returns:
        COCO content, what to call its source, and the folder of the images (empty for a
        registered data set, whose paths are whole).
    """
    source = _source(data, split)
    if source is None:
        name = data[split]["name"]
        return _registered_content(name), name, ""
    _require_images(source, split)
    source = _with_all_classes(source, data)
    return _READERS[source.form](source), source.annotations, source.images


def _registered_content(name: str) -> dict[str, Any]:
    categories = [{"id": i, "name": x} for i, x in enumerate(_registered_classes(name))]
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


class _Source(NamedTuple):
    """The files of a split."""

    form: str  # a key of _READERS
    annotations: str
    images: str
    classes: tuple[str, ...]  # of data.classes; empty if not given


def _source(data: Mapping[str, Any], split: str) -> _Source | None:
    """None for a registered data set."""
    given = [form for form in _READERS if data[split].get(form)]
    if len(given) > 1:
        raise ValueError(f"data.{split} has {' and '.join(given)}; allowed: one of them")
    if not given:
        return None
    paths = (os.path.expanduser(data[split].get(key) or "") for key in (given[0], "images"))
    return _Source(given[0], *paths, tuple(data.get("classes") or ()))


_READERS: dict[str, Callable[[_Source], dict[str, Any]]] = {
    "json": lambda source: read_coco_json(source.annotations),
    "voc": lambda source: read_voc(source.annotations, source.images, source.classes),
    "yolo": lambda source: read_yolo(source.annotations, source.images, source.classes),
}


def _categories(source: _Source) -> dict[int, str]:
    """Category id -> name."""
    return _summary(source)[0]


@functools.lru_cache(maxsize=32)
def _summary(source: _Source) -> tuple[dict[int, str], bool]:
    """Categories, and whether the files can be evaluated on as they are.

    Kept, unlike the content, which may be gigabytes.
    """
    content = _READERS[source.form](source)
    evaluable = source.form == "json" and is_evaluable(content)
    return categories_by_id(content, source.annotations), evaluable


def _with_all_classes(source: _Source, data: Mapping[str, Any]) -> _Source:
    """The source with the model's classes, where its own are only those that it happens to name."""
    if source.form != "voc":
        return source
    classes = class_names(data)
    fewer = set(_categories(source).values()) < set(classes)
    return source._replace(classes=tuple(classes)) if fewer else source


def _register(source: _Source, data: Mapping[str, Any], split: str) -> str:
    classes = class_names(data)
    source = _with_all_classes(source, data)
    categories = _categories(source)
    _require_same_classes(list(categories.values()), data, split)
    class_index = {key: classes.index(name) for key, name in categories.items()}

    allow_outside = bool(data.get("allow_outside", False))
    identity = repr((source, class_index, allow_outside)).encode()
    stem = os.path.splitext(os.path.basename(os.path.normpath(source.annotations)))[0]
    name = f"{stem}_{zlib.crc32(identity):08x}"
    if name not in DatasetCatalog:
        DatasetCatalog.register(
            name,
            lambda: to_records(
                _READERS[source.form](source),
                source.annotations,
                source.images,
                class_index,
                allow_outside=allow_outside,
            ),
        )
        metadata = MetadataCatalog.get(name)
        metadata.set(
            image_root=source.images,
            evaluator_type="coco",
            thing_classes=classes,
            thing_colors=[_PALETTE[i % len(_PALETTE)] for i in range(len(classes))],
            thing_dataset_id_to_contiguous_id=class_index,
        )
        if _summary(source)[1]:  # else the evaluator writes what was repaired to a file
            metadata.json_file = source.annotations
    return name


def _registered_classes(name: str) -> list[str]:
    if name not in DatasetCatalog:
        close = ", ".join(difflib.get_close_matches(name, DatasetCatalog.list(), n=3))
        raise ValueError(
            f"data set {name!r} is not registered in detectron2; close: {close or 'none'}"
        )
    if not hasattr(MetadataCatalog.get(name), "thing_classes"):
        with _named(name):
            DatasetCatalog.get(name)  # some tell their classes only when they are read
    classes = getattr(MetadataCatalog.get(name), "thing_classes", None)
    if not classes:
        raise ValueError(f"data set {name!r} has no thing_classes in its metadata")
    return list(classes)


def _require_same_classes(found: list[str], data: Mapping[str, Any], split: str) -> None:
    expected = class_names(data)
    if set(found) != set(expected):
        only = [x for x in found if x not in set(expected)]
        lacking = [x for x in expected if x not in set(found)]
        raise ValueError(
            f"data.{split} has the classes {_short(found)}, but the model is for "
            f"{_short(expected)}: give both data.train and data.val with the same classes. "
            f"Only in data.{split}: {_short(only)}; lacking in it: {_short(lacking)}"
        )


def _short(names: list[str], limit: int = 12) -> str:
    tail = f", … ({len(names)} in all)" if len(names) > limit else ""
    return (", ".join(names[:limit]) or "none") + tail
