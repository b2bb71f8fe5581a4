"""Reading a data set by datumaro, which is imported here alone, when it is needed."""

from __future__ import annotations

import csv
import difflib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nanodet_d2.runtime.files import IMAGE_SUFFIXES

from ..files import Problems
from ..formats import looks_like
from .gathering import Box, Item, gather
from .writing import Part, Picture

_DEPTH = 2  # folders below, in which the data set may begin
_WITH_BOXES = (  # formats to choose from; it reads others as well
    *("cvat", "datumaro", "dota", "icdar_text_localization", "kitti_detection", "label_me"),
    *("mapillary_vistas_instances", "mot_seq", "mots", "mvtec_detection", "open_images"),
    *("vott_csv", "vott_json", "wider_face"),
)
# Datumaro recognises KITTI's files only by names that KITTI's own do not have.
_KITTI, _KITTI_FILES = "kitti_detection", "**/label_2/*.txt"
_NO_BOXES = {"image_dir", "image_zip", "imagenet", "imagenet_with_subset_dirs", "video_frames"}
# Annotations that have a box, as datumaro's types are called; of a mask it is that around it.
_WITH_BOX = {"bbox", "rotated_bbox", "polygon", "mask", "ellipse"}
# What formats call regions in which nothing is to be learnt.
_CROWD = ("is_crowd", "is_group_of", "ignored")
_REGIONS = {"DontCare"}  # the same as a class, in KITTI


def read(folder: str, form: str | None) -> tuple[dict[str, Part], str, Problems]:
    """The splits of a data set, what its format is, and what was met.

    Args:
        folder: of the data set.
        form: as datumaro names it; found by itself if None.

    Raises:
        FileNotFoundError: if there is no such folder.
        ImportError: if datumaro is not installed.
        ValueError: if the format is not known or could be several, or the data set cannot be read.
    """
    folder = os.path.expanduser(folder)
    if not os.path.exists(folder):
        raise FileNotFoundError(f"data set {folder} not found")
    try:
        from datumaro.components.dataset import Dataset
        from datumaro.components.environment import DEFAULT_ENVIRONMENT
    except ImportError as error:
        raise ImportError(
            f"{folder} is of no layout that is known here; it looks like {looks_like(folder)}. "
            "Others are read by datumaro: pip install 'nanodet-d2[datasets]' (Python 3.10 or later)"
        ) from error
    form = _format(folder, form, DEFAULT_ENVIRONMENT)
    try:
        dataset = Dataset.import_from(folder, form)
        parts, problems = _parts(dataset, folder)
    except Exception as error:  # of any kind: its readers check little
        raise ValueError(f"{folder} cannot be read as {form}: {_reason(error)}") from error
    return parts, f"{form}, read by datumaro", problems


def _format(folder: str, form: str | None, environment: Any) -> str:
    known = sorted(environment.importers)
    if form is not None:
        if form not in known:
            close = ", ".join(difflib.get_close_matches(form, known, n=3)) or "none"
            raise ValueError(f"--from {form}; close: {close}; allowed: {', '.join(known)}")
        return form
    found = environment.detect_dataset(folder, depth=_DEPTH)
    found = [x for x in found if x not in _NO_BOXES]
    if not found and any(Path(folder).glob(_KITTI_FILES)):
        found = [_KITTI]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"{folder} could be {', '.join(found)}: choose one with --from")
    raise ValueError(
        f"{folder} has no data set that is known here or to datumaro; it looks like "
        f"{looks_like(folder)}. If you know what it is, say so with --from, as one of "
        f"{', '.join(_WITH_BOXES)}"
    )


def _reason(error: BaseException) -> str:
    """The first cause, which says most."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(f"{type(error).__name__}: {error}".split())


def _parts(dataset: Any, folder: str) -> tuple[dict[str, Part], Problems]:
    problems = Problems()
    labels = next((v for k, v in dataset.categories().items() if k.name == "label"), ())
    codes, display_names = [label.name for label in labels], _display_names(Path(folder))
    names = [display_names.get(code, code) for code in codes]
    if len(set(names)) < len(names):
        names = codes
    items = list(_items(dataset, folder, names, problems))
    return gather(items, problems, order=names), problems


def _items(dataset: Any, folder: str, names: Sequence[str], problems: Problems) -> Iterator[Item]:
    """The items that have an image, each with its boxes."""
    root = Path(os.path.abspath(folder))
    for item in dataset:
        picture = _picture(item)
        if picture is None:
            problems.add("annotations without their image, left out", str(item.id))
            continue
        if picture.path and root not in Path(os.path.abspath(picture.path)).parents:
            problems.add("images outside the data set's folder, left out", picture.path)
            continue
        boxes: list[Box] = []
        for annotation in item.annotations:
            kind = annotation.type.name
            if kind not in _WITH_BOX:
                problems.add(f"annotations of the kind {kind}, left out", str(item.id))
            elif annotation.label is None:
                problems.add("boxes without a class, left out", str(item.id))
            elif names[annotation.label] in _REGIONS:
                problems.add("regions that do not count, left out", str(item.id))
            else:
                if kind != "bbox":
                    problems.add(f"{kind}s, turned into their boxes", str(item.id))
                is_crowd = any(annotation.attributes.get(x) in (True, 1) for x in _CROWD)
                xywh = [float(x) for x in annotation.get_bbox()]
                boxes.append(Box(names[annotation.label], xywh, is_crowd))
        yield Item(item.subset, picture, boxes)


def _picture(item: Any) -> Picture | None:
    media = item.media
    if media is None:
        return None
    path = getattr(media, "path", None)
    if path and os.path.isfile(path) and path.lower().endswith(IMAGE_SUFFIXES):
        return Picture(name=str(item.id), path=path)
    if getattr(media, "has_data", False):
        return Picture(name=f"{item.id}.png", pixels=lambda: media.data[:, :, :3])
    return None


def _display_names(folder: Path) -> dict[str, str]:
    """Names of Open Images' classes, which datumaro calls by their codes, as ``/m/01yrx``."""
    found: dict[str, str] = {}
    for path in sorted(folder.glob("**/*class-descriptions*.csv")):
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = (row for row in csv.reader(file) if len(row) == 2)
            found.update((code, name) for code, name in rows if code != "LabelName")
    return found
