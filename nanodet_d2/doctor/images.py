"""Reading every image of a split once: is it usable, and is it in another split as well?"""

from __future__ import annotations

import functools
import hashlib
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from detectron2.utils.file_io import PathManager
from tqdm import tqdm

from nanodet_d2.data.files import Problems
from nanodet_d2.data.images import read_image
from nanodet_d2.runtime.images import MAX_PIXELS, ImageError

from .annotations import Split

# What tools append to the names of copies: "a (1)", "a_copy2", "a - Copy", "a_jpg.rf.1a2b…".
_COPY = re.compile(r"(\s*\(\d+\)|[ _-]*cop(y|ie)[ _-]*\d*|[._](jpe?g|png)\.rf\.[0-9a-f]+)$", re.I)
_NAMED = 3

Hashes = dict[bytes, str]  # of a file's bytes -> its first path


def examine_images(
    split: Split, *, workers: int | None = None, max_pixels: int = MAX_PIXELS
) -> Hashes:
    """Decode the images of a split, with a progress bar, and add to its problems and notes.

    Args:
        workers: threads; one per core if None.
        max_pixels: of the mapper that will read them.

    Returns:
        the usable files by content.
    """
    records = [x for x in split.records.values() if x["file_name"] not in split.missing]
    hashes: Hashes = {}
    twice = []
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        results = pool.map(functools.partial(_examine, max_pixels=max_pixels), records)
        bar = tqdm(results, f"{split.name}: reading images", len(records), unit="image")
        for record, result in zip(records, bar):
            path = record["file_name"]
            if isinstance(result, ImageError):
                split.broken[path] = result.reason
                split.problems.add("images that cannot be used", f"{path}: {result.reason}")
            elif result in hashes:
                twice.append(f"{path} as {hashes[result]}")
            else:
                hashes[result] = path
    if twice:
        split.notes.append(
            f"{len(twice)} images are there twice under other names: {', '.join(twice[:_NAMED])}"
        )
    return hashes


def _examine(record: dict[str, Any], *, max_pixels: int) -> bytes | ImageError:
    try:
        read_image(dict(record), "BGR", max_pixels=max_pixels)
    except ImageError as error:
        return error
    with open(PathManager.get_local_path(record["file_name"]), "rb") as file:
        return hashlib.blake2b(file.read(), digest_size=16).digest()


def examine_pair(
    train: Split, val: Split, hashes: tuple[Hashes, Hashes] | None
) -> tuple[Problems, list[str]]:
    """Problems and notes of two splits together.

    Args:
        hashes: of :func:`examine_images`; without them only paths are compared.
    """
    problems, notes = Problems(), []
    same = _shared_images(train, val, hashes)
    for a, b in same:
        problems.add("images of train that are in val as well", a if a == b else f"{a} as {b}")
    for name in sorted(set(train.classes) ^ set(val.classes)):
        where = "train" if name in train.classes else "val"
        problems.add("categories of only one of train and val", f"{name}, in {where}")
    alike = _alike_names(train, val, known={b for _, b in same})
    if alike:
        examples = ", ".join(f"{a} and {b}" for a, b in alike[:_NAMED])
        notes.append(f"{len(alike)} images of val have the name of one of train: {examples}")
    return problems, notes


def _shared_images(
    train: Split, val: Split, hashes: tuple[Hashes, Hashes] | None
) -> list[tuple[str, str]]:
    """(path in train, path in val) of the images of both: of one content, else of one path."""
    of_train, of_val = hashes or (
        {os.path.realpath(x["file_name"]): x["file_name"] for x in split.records.values()}
        for split in (train, val)
    )
    return sorted((of_train[key], of_val[key]) for key in of_train.keys() & of_val.keys())


def _alike_names(train: Split, val: Split, known: set[str]) -> list[tuple[str, str]]:
    """(path in train, path in val) of images that are named as copies are, but for those known."""
    stems = {_plain(x["file_name"]): x["file_name"] for x in train.records.values()}
    return [
        (stems[_plain(x["file_name"])], x["file_name"])
        for x in val.records.values()
        if x["file_name"] not in known and _plain(x["file_name"]) in stems
    ]


def _plain(path: str) -> str:
    """A file's name without suffix, case and what marks a copy."""
    stem = Path(path).stem
    while (shorter := _COPY.sub("", stem)) not in ("", stem):
        stem = shorter
    return stem.casefold()
