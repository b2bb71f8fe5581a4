"""Reading a data set by datumaro, which is imported here alone, when it is needed."""

from __future__ import annotations

import csv
import difflib
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from nanodet_d2.runtime.files import IMAGE_SUFFIXES

from ..files import Problems, listed_image_size
from ..formats import looks_like
from ..readers.content import Content
from ..readers.source import SPLITS, split_of
from .writing import Part, Picture

_DEPTH = 2  # folders below, in which the data set may begin
_WITH_BOXES = (  # formats to choose from; it reads others as well
    *("cvat", "datumaro", "dota", "icdar_text_localization", "kitti_detection", "label_me"),
    *("mapillary_vistas_instances", "mot_seq", "mots", "mvtec_detection", "open_images"),
    *("roboflow_create_ml", "vott_csv", "vott_json", "wider_face"),
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
        parts, problems = _parts(dataset, _display_names(Path(folder)))
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


def _parts(dataset: Any, display_names: Mapping[str, str]) -> tuple[dict[str, Part], Problems]:
    problems = Problems()
    labels = next((v for k, v in dataset.categories().items() if k.name == "label"), ())
    regions = {i for i, label in enumerate(labels) if label.name in _REGIONS}
    items = list(_items(dataset, regions, problems))
    several = len({item.subset for item, _, _ in items}) > 1
    names = [display_names.get(label.name, label.name) for label in labels]
    if len(set(names)) < len(names):
        names = [label.name for label in labels]
    used = sorted({label for _, _, boxes in items for label, _, _ in boxes})
    index = {label: i for i, label in enumerate(used)}
    contents: dict[str, tuple[Content, list[Picture]]] = {}
    for item, picture, boxes in sorted(items, key=lambda x: (x[0].subset, x[0].id)):
        split = split_of(item.subset)
        if split is None:
            split = "train"
            what = "images of subsets that are no splits, put to train"
            problems.add(what, item.subset, int(several))
        size = _size(picture, problems)
        if size is None:
            continue
        content, pictures = contents.setdefault(
            split, (Content([names[x] for x in used], first_id=1, problems=problems), [])
        )
        content.add_image(picture.name, size)
        pictures.append(picture)
        for label, xywh, is_crowd in boxes:
            content.add_box(index[label], xywh, is_crowd=is_crowd)
    ordered = [split for split in SPLITS if split in contents]
    return {x: Part(contents[x][0].as_coco(), contents[x][1]) for x in ordered}, problems


_Box = tuple[int, list[float], bool]  # label, XYWH, whether nothing is to be learnt there


def _items(
    dataset: Any, regions: Collection[int], problems: Problems
) -> Iterator[tuple[Any, Picture, list[_Box]]]:
    """The items that have an image, each with its boxes; labels that are regions have none."""
    for item in dataset:
        picture = _picture(item)
        if picture is None:
            problems.add("annotations without their image, left out", str(item.id))
            continue
        boxes: list[_Box] = []
        for annotation in item.annotations:
            kind = annotation.type.name
            if kind not in _WITH_BOX:
                problems.add(f"annotations of the kind {kind}, left out", str(item.id))
            elif annotation.label is None:
                problems.add("boxes without a class, left out", str(item.id))
            elif annotation.label in regions:
                problems.add("regions that do not count, left out", str(item.id))
            else:
                if kind != "bbox":
                    problems.add(f"{kind}s, turned into their boxes", str(item.id))
                crowd = any(annotation.attributes.get(x) in (True, 1) for x in _CROWD)
                box = [float(x) for x in annotation.get_bbox()]
                boxes.append((int(annotation.label), box, crowd))
        yield item, picture, boxes


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


def _size(picture: Picture, problems: Problems) -> tuple[int, int] | None:
    """(height, width) as the image will be read, whatever the annotations say."""
    if picture.pixels is None:
        return listed_image_size(Path(picture.path), problems)
    height, width = picture.pixels().shape[:2]
    return height, width


def _display_names(folder: Path) -> dict[str, str]:
    """Names of Open Images' classes, which datumaro calls by their codes, as ``/m/01yrx``."""
    found: dict[str, str] = {}
    for path in sorted(folder.glob("**/*class-descriptions*.csv")):
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = (row for row in csv.reader(file) if len(row) == 2)
            found.update((code, name) for code, name in rows if code != "LabelName")
    return found
