"""The ``data`` section of a config: which data set each split uses, and its classes.

A split is ``{name, json, images}``: a COCO file with its image folder, or else the name of a data
set that is registered in detectron2.
"""

from __future__ import annotations

import difflib
import os
import zlib
from collections.abc import Mapping
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.colormap import colormap

from .coco import load_coco, read_categories

_PALETTE = [tuple(map(int, color)) for color in colormap(rgb=True, maximum=255)]


def num_classes(data: Mapping[str, Any]) -> int:
    """Number of classes of the ``data`` section."""
    return len(class_names(data))


def class_names(data: Mapping[str, Any]) -> list[str]:
    """Classes in the model's order: of the first split that is given as a file, else of train."""
    for split in ("train", "val"):
        if data[split].get("json"):
            return list(read_categories(_path(data[split]["json"])).values())
    return _registered_classes(data["train"]["name"])


def split_name(data: Mapping[str, Any], split: str) -> str:
    """Name of the split's data set in detectron2's catalog, registered first if it is a file.

    Args:
        data: the ``data`` section of a config.
        split: "train" or "val".

    Raises:
        ValueError: if images or name are missing or unknown, or if the split's classes are not
            those of :func:`class_names`; the order of ids may differ.
    """
    source = data[split]
    if not source.get("json"):
        _require_same_classes(_registered_classes(source["name"]), data, split)
        return source["name"]
    if not source.get("images"):
        raise ValueError(f"data.{split}.json needs data.{split}.images, the folder of its images")
    return _register(_path(source["json"]), _path(source["images"]), data, split)


def _register(json_file: str, images: str, data: Mapping[str, Any], split: str) -> str:
    classes = class_names(data)
    categories = read_categories(json_file)
    _require_same_classes(list(categories.values()), data, split)
    class_index = {key: classes.index(name) for key, name in categories.items()}

    identity = repr((json_file, images, class_index)).encode()
    stem = os.path.splitext(os.path.basename(json_file))[0]
    name = f"{stem}_{zlib.crc32(identity):08x}"
    if name not in DatasetCatalog:
        DatasetCatalog.register(name, lambda: load_coco(json_file, images, class_index))
        MetadataCatalog.get(name).set(
            json_file=json_file,
            image_root=images,
            evaluator_type="coco",
            thing_classes=classes,
            thing_colors=[_PALETTE[i % len(_PALETTE)] for i in range(len(classes))],
            thing_dataset_id_to_contiguous_id=class_index,
        )
    return name


def _registered_classes(name: str) -> list[str]:
    if name not in DatasetCatalog:
        close = ", ".join(difflib.get_close_matches(name, DatasetCatalog.list(), n=3))
        raise ValueError(
            f"data set {name!r} is not registered in detectron2; close: {close or 'none'}"
        )
    if not hasattr(MetadataCatalog.get(name), "thing_classes"):
        DatasetCatalog.get(name)  # some data sets tell their classes only when they are read
    classes = getattr(MetadataCatalog.get(name), "thing_classes", None)
    if not classes:
        raise ValueError(f"data set {name!r} has no thing_classes in its metadata")
    return list(classes)


def _require_same_classes(found: list[str], data: Mapping[str, Any], split: str) -> None:
    expected = class_names(data)
    if set(found) != set(expected):
        raise ValueError(
            f"data.{split} has the classes {_short(found)}, but the model is for "
            f"{_short(expected)}: give both data.train and data.val with the same classes"
        )


def _short(names: list[str], limit: int = 12) -> str:
    tail = f", … ({len(names)} in all)" if len(names) > limit else ""
    return ", ".join(names[:limit]) + tail


def _path(path: str) -> str:
    return os.path.expanduser(path)
