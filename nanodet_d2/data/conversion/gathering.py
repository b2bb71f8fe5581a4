"""Annotated images, in any order, put together to the splits of a data set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ..files import Problems, listed_image_size
from ..readers.content import Content
from ..readers.source import SPLITS, split_of
from .writing import Part, Picture


class Box(NamedTuple):
    """A box (XYWH, pixels) of a class; a crowd's neither teaches nor counts."""

    name: str
    xywh: list[float]
    is_crowd: bool = False


class Item(NamedTuple):
    """An image, the part of the data set that it is said to be in, and its boxes."""

    subset: str
    picture: Picture
    boxes: list[Box]


def gather(
    items: Iterable[Item], problems: Problems, *, order: Sequence[str] = ()
) -> dict[str, Part]:
    """The splits that have images; their classes are those that have boxes.

    Args:
        items: what there is.
        problems: gets what is left out.
        order: of the classes; by name, if empty.
    """
    items = sorted(items, key=lambda x: (x.subset, x.picture.path or x.picture.name))
    several = len({item.subset for item in items}) > 1
    used = {box.name for item in items for box in item.boxes}
    classes = [name for name in order or sorted(used) if name in used]
    index = {name: i for i, name in enumerate(classes)}
    contents: dict[str, tuple[Content, list[Picture]]] = {}
    for item in items:
        split = split_of(item.subset)
        if split is None:
            split = "train"
            what = "images of subsets that are no splits, put to train"
            problems.add(what, item.subset, int(several))
        size = _size(item.picture, problems)
        if size is None:
            continue
        if split not in contents:
            contents[split] = Content(classes, first_id=1, problems=problems), []
        content, pictures = contents[split]
        content.add_image(item.picture.name, size)
        pictures.append(item.picture)
        for box in item.boxes:
            content.add_box(index[box.name], box.xywh, is_crowd=box.is_crowd)
    ordered = [split for split in SPLITS if split in contents]
    return {x: Part(contents[x][0].as_coco(), contents[x][1]) for x in ordered}


def _size(picture: Picture, problems: Problems) -> tuple[int, int] | None:
    """(height, width) as the image will be read, whatever the annotations say."""
    if picture.pixels is None:
        return listed_image_size(Path(picture.path), problems)
    height, width = picture.pixels().shape[:2]
    return height, width
