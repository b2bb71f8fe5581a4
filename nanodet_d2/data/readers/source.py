"""Where a split's files lie, and how a folder of splits is laid out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

SPLITS = ("train", "val", "test")
# How folders and files of a split are called, by the words in their names.
_WORDS = {
    "train": {"train", "training", "trn"},
    "val": {"val", "valid", "validation", "dev"},
    "test": {"test", "testing", "testdev"},
}
_WORD = re.compile(r"[a-z]+")


class Source(NamedTuple):
    """The files of a split; hashable, so that what is known of it can be kept.

    Attributes:
        form: "json", "voc" or "yolo", as the keys of a config's split.
        annotations: a file, or a folder.
        images: folder that the images' names are relative to.
        classes: names in the model's order; empty where the files tell them.
        listed: files that list the images, and folders of them; all of ``images`` if empty.
        ignore_difficult: Pascal VOC's ``difficult`` objects neither teach nor count.
    """

    form: str
    annotations: str
    images: str
    classes: tuple[str, ...] = ()
    listed: tuple[str, ...] = ()
    ignore_difficult: bool = False


class Layout(NamedTuple):
    """How a folder is laid out.

    Attributes:
        name: "coco", "voc" or "yolo", a choice for ``data.layout``.
        what: it is, in words.
        splits: by name: "train", "val", "test", and what else there is.
    """

    name: str
    what: str
    splits: dict[str, Source]


def split_of(name: str) -> str | None:
    """The split that a file or folder is named after, as ``valid`` or ``instances_train2017``.

    None if there is no such word in the name, or several.
    """
    words = set(_WORD.findall(name.lower()))
    found = [split for split, known in _WORDS.items() if words & known]
    return found[0] if len(found) == 1 else None


def split_folders(folder: Path) -> dict[str, Path]:
    """The folders in a folder that are named after splits.

    Raises:
        ValueError: for two of the same split.
    """
    found: dict[str, Path] = {}
    for child in folders_in(folder):
        split = split_of(child.name)
        if split is None:
            continue
        if split in found:
            raise ValueError(
                f"{folder} has two folders for {split}: {found[split].name} and {child.name}"
            )
        found[split] = child
    return found


def folders_in(folder: Path) -> list[Path]:
    """Sorted, without hidden ones."""
    return sorted(x for x in folder.iterdir() if x.is_dir() and not x.name.startswith("."))


def files_in(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """Files directly in a folder, sorted, without hidden ones."""
    wanted = tuple(suffixes)
    return sorted(
        x
        for x in folder.iterdir()
        if x.suffix.lower() in wanted and not x.name.startswith(".") and x.is_file()
    )


def has_files(folder: Path, suffixes: Iterable[str]) -> bool:
    """Whether there is one of these suffixes anywhere below."""
    wanted = tuple(suffixes)
    for _, _, names in os.walk(folder):
        if any(name.lower().endswith(wanted) for name in names):
            return True
    return False


def lines_of(path: Path) -> list[str]:
    """Lines of a list, without blank ones and without spaces around them.

    Raises:
        ValueError: if it is no text in UTF-8; the message names it.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8: {error}") from error
    return [line.strip() for line in lines if line.strip()]
