"""Readers of annotations: a file per layout, all of which give the content of a COCO file.

Each has ``read(source)``, which gives the content of a split, and ``recognise(folder)``, which
tells where a folder of that layout has its splits; the empty name is of one without splits.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nanodet_d2.runtime.files import IMAGE_SUFFIXES

from ..formats import looks_like
from . import coco, voc, voc_folder, yolo, yolo_folder
from .source import SPLITS, Layout, Source, files_in, folders_in, split_of

__all__ = ["LAYOUTS", "READERS", "SPLITS", "Layout", "Source", "UnknownLayout", "find_layout"]

READERS: dict[str, Callable[[Source], dict[str, Any]]] = {
    "json": coco.read,
    "voc": voc.read,
    "yolo": yolo.read,
}
_DATA_SUFFIXES = (".json", ".xml", ".yaml", ".yml", ".txt", ".names", *IMAGE_SUFFIXES)
_LAYOUTS = {"coco": coco.recognise, "voc": voc_folder.recognise, "yolo": yolo_folder.recognise}
LAYOUTS = tuple(_LAYOUTS)


class UnknownLayout(ValueError):
    """A folder is of no layout that there is a reader for."""


def find_layout(folder: str, name: str | None = None) -> Layout:
    """How a data set's folder is laid out.

    Args:
        folder: of the data set, or the path of YOLO's ``data.yaml``.
        name: "coco", "voc" or "yolo", where it could be several.

    Raises:
        FileNotFoundError: if there is no such folder.
        UnknownLayout: if it is of none that is known here.
        ValueError: if it could be of several; the message names them.
    """
    if name is not None and name not in _LAYOUTS:
        raise ValueError(f"data.layout={name}; allowed: {', '.join(_LAYOUTS)}")
    path = Path(folder)
    if path.is_file() and path.suffix in (".yaml", ".yml") and name in (None, "yolo"):
        return yolo_folder.described_layout(path)
    if not path.exists():
        raise FileNotFoundError(f"data set {folder} not found")
    if not path.is_dir():
        raise ValueError(
            f"data set {folder} is neither a folder nor YOLO's data.yaml; it looks like "
            f"{looks_like(folder)}"
        )
    path = _inner_folder(path)
    wanted = [name] if name else list(_LAYOUTS)
    found = [layout for key in wanted for layout in _LAYOUTS[key](path)]
    if not found:
        what = f"of the layout {name}" if name else "that is known here"
        raise UnknownLayout(
            f"{folder} has no data set {what}; it looks like {looks_like(folder)}. Allowed: COCO, "
            "Pascal VOC, YOLO; nanodet-d2 data convert makes COCO of others"
        )
    if len(found) > 1:
        choices = "; ".join(f"{x.what} (data.layout={x.name})" for x in found)
        raise ValueError(f"{folder} could be {choices}: choose one")
    splits = found[0].splits
    if "" in splits:
        if name is None:
            _require_no_split_below(path, found[0])
        splits = {"train": splits[""]}
    order = [x for x in SPLITS if x in splits] + [x for x in splits if x not in SPLITS]
    return found[0]._replace(splits={x: splits[x] for x in order})


def _inner_folder(folder: Path) -> Path:
    """The folder itself, or what is in it where that is one folder alone, as archives have it."""
    while True:
        below = folders_in(folder)
        if len(below) != 1 or split_of(below[0].name) or files_in(folder, _DATA_SUFFIXES):
            return folder
        folder = below[0]


def _require_no_split_below(folder: Path, layout: Layout) -> None:
    """Lest images that are kept for a test are trained on."""
    for root, names, _ in os.walk(folder):
        for name in sorted(names):
            if split_of(name) in ("val", "test"):
                raise ValueError(
                    f"{folder} is {layout.what} without splits that are known here, but has the "
                    f"folder {os.path.relpath(os.path.join(root, name), folder)}: give a folder "
                    f"with splits as data.source, or data.layout={layout.name} to train on all"
                )
