"""The ``data`` section of a config: which data set each split uses, and its classes.

A split is one of these, and ``images``, the folder of its images:

- ``json``: a COCO file,
- ``voc``: a folder of Pascal VOC's XML files,
- ``yolo``: a folder of YOLO's text files, whose class names ``data.classes`` lists,

or else ``name``, a data set that is registered in detectron2, by a module of ``data.imports`` if it
is the user's own. detectron2's way to say so, ``dataloader.train.dataset.names=…``, counts as well.

``allow_outside`` lets the files name images outside that folder.

In their place, ``data.source`` is a folder with all splits, whose layout is recognised.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.colormap import colormap
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .records import to_records
from .registered import import_user_code, registered_classes, registered_content
from .sources import SplitSource, read_split, source_of, summary

_LOADERS = {"train": "train", "val": "test"}  # a split's section of ``dataloader``
_SHIPPED = {"train": "coco_2017_train", "val": "coco_2017_val"}  # of the shipped config
_PALETTE = [tuple(map(int, color)) for color in colormap(rgb=True, maximum=255)]


def num_classes(data: Mapping[str, Any]) -> int:
    """Number of classes of the ``data`` section.

    Args:
        data: the ``data`` section of a config, which names the classes or the files they are in.
    """
    return len(class_names(data))


def class_names(data: Mapping[str, Any]) -> list[str]:
    """Classes in the model's order.

    Those of ``data.classes``, else of the first split whose data set is not the one that the config
    ships with, else of that of train.
    """
    if data.get("classes"):
        return list(data["classes"])
    for split in ("train", "val"):
        source = _source(data, split)
        if source is not None:
            return list(summary(source).categories.values())
        if registered_name(data, split) != _SHIPPED[split]:
            return _registered_classes(data, split)
    return _registered_classes(data, "train")


def names_for_model(data: Mapping[str, Any] | None, count: int) -> list[str]:
    """Names of a model's so many classes: numbers, if ``data`` tells none, or not as many.

    So it is where ``model.head.num_classes`` was set by hand.
    """
    return known_names(data, count) or [f"class {i}" for i in range(count)]


def known_names(data: Mapping[str, Any] | None, count: int) -> list[str] | None:
    """Names of a model's so many classes; None if ``data`` tells none, or not as many."""
    names: list[str] = []
    if data is not None:
        with suppress(ValueError):
            names = class_names(data)
    return names if len(names) == count else None


def split_name(data: Mapping[str, Any], split: str) -> str:
    """Name of the split's data set in detectron2's catalog, registered first if it is files.

    Args:
        data: the ``data`` section of a config.
        split: "train" or "val".

    Raises:
        ValueError: if images or name are missing or unknown, or if the split's classes are not
            those of :func:`class_names`; the order of ids may differ, but in a registered data set,
            whose ids are the classes' numbers.
    """
    source = _source(data, split)
    if source is None:
        name, found = registered_name(data, split), _registered_classes(data, split)
        _require_same_classes(found, data, split)
        if found != class_names(data):
            raise ValueError(
                f"data set {name!r} numbers its classes {_short(found)}, but the model's are "
                f"{_short(class_names(data))}; allowed for a registered data set: the same order"
            )
        return name
    _require_images(source, split)
    return _register(source, data, split)


def _require_images(source: SplitSource, split: str) -> None:
    if not source.files.images:
        raise ValueError(
            f"data.{split}.{source.files.form} needs data.{split}.images, the folder of its images"
        )


def split_content(data: Mapping[str, Any], split: str) -> tuple[dict[str, Any], str, str]:
    """A split as it is, before anything in it is repaired.

    Returns:
        COCO content, what to call its source, and the folder of the images (empty for a
        registered data set, whose paths are whole).
    """
    source = _source(data, split)
    if source is None:
        name = registered_name(data, split)
        return registered_content(name, _registered_classes(data, split)), name, ""
    _require_images(source, split)
    source = _with_all_classes(source, data)
    return read_split(source), source.name, source.files.images


def _source(data: Mapping[str, Any], split: str) -> SplitSource | None:
    """None for a registered data set."""
    if _name_given_to_loader(data, split) or split not in data:
        return None
    return source_of(data, split)


def _with_all_classes(source: SplitSource, data: Mapping[str, Any]) -> SplitSource:
    """The source with the model's classes, where its own are only those that it happens to name."""
    if source.files.form != "voc":
        return source
    classes = class_names(data)
    fewer = set(summary(source).categories.values()) < set(classes)
    files = source.files._replace(classes=tuple(classes))
    return source._replace(files=files) if fewer else source


def _register(source: SplitSource, data: Mapping[str, Any], split: str) -> str:
    classes = class_names(data)
    source = _with_all_classes(source, data)
    categories = summary(source).categories
    _require_same_classes(list(categories.values()), data, split)
    numbers = {name: i for i, name in enumerate(classes)}
    class_index = {key: numbers[name] for key, name in categories.items()}

    allow_outside = bool(data.get("allow_outside", False))
    identity = repr((source, class_index, allow_outside)).encode()
    stem = os.path.splitext(os.path.basename(os.path.normpath(source.name)))[0]
    name = f"{stem}_{zlib.crc32(identity):08x}"
    if name not in DatasetCatalog:
        DatasetCatalog.register(
            name,
            lambda: to_records(
                read_split(source),
                source.name,
                source.files.images,
                class_index,
                allow_outside=allow_outside,
            ),
        )
        metadata = MetadataCatalog.get(name)
        metadata.set(
            image_root=source.files.images,
            evaluator_type="coco",
            thing_classes=classes,
            thing_colors=[_PALETTE[i % len(_PALETTE)] for i in range(len(classes))],
            thing_dataset_id_to_contiguous_id=class_index,
        )
        if summary(source).evaluable:  # else the evaluator writes what was repaired to a file
            metadata.json_file = source.name
    return name


def registered_name(data: Mapping[str, Any], split: str) -> str:
    """Name in detectron2's catalog of a split that is no files of ours."""
    section = data.get(split, {})
    return _name_given_to_loader(data, split) or section.get("name") or _SHIPPED[split]


def _name_given_to_loader(data: Mapping[str, Any], split: str) -> str:
    """The data set of ``dataloader.….dataset.names=…``, which replaces the call of ``split_name``.

    Of several, detectron2 sees to it that they have the same classes. Empty if it still is the
    call, or if ``data`` is no part of a whole config.
    """
    if not isinstance(data, DictConfig):
        return ""
    try:
        names = OmegaConf.select(data, f"..dataloader.{_LOADERS[split]}.dataset.names")
    except OmegaConfBaseException:
        return ""
    if isinstance(names, ListConfig) and names:
        names = names[0]
    return names if isinstance(names, str) else ""


def _registered_classes(data: Mapping[str, Any], split: str) -> list[str]:
    import_user_code(data)
    return registered_classes(registered_name(data, split))


def _require_same_classes(found: list[str], data: Mapping[str, Any], split: str) -> None:
    expected = class_names(data)
    mine, models = set(found), set(expected)
    if mine != models:
        only = [x for x in found if x not in models]
        lacking = [x for x in expected if x not in mine]
        remedy = "give both data.train and data.val with the same classes"
        if _source(data, split) is None and registered_name(data, split) == _SHIPPED[split]:
            remedy = (
                f"it still is {_SHIPPED[split]}. Give data.{split}.json=… and data.{split}.images=…"
                f", or data.{split}.name=…, a data set registered in detectron2"
            )
        raise ValueError(
            f"data.{split} has the classes {_short(found)}, but the model is for "
            f"{_short(expected)}: {remedy}. "
            f"Only in data.{split}: {_short(only)}; lacking in it: {_short(lacking)}"
        )


def _short(names: list[str], limit: int = 12) -> str:
    tail = f", … ({len(names)} in all)" if len(names) > limit else ""
    return (", ".join(names[:limit]) or "none") + tail
