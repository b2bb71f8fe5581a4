"""Files of a data set, and the list of what is wrong with them."""

from __future__ import annotations

import collections
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from .images import ImageError, image_size

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


class Problems:
    """How often each problem was met, and where first."""

    def __init__(self) -> None:
        self._counts: collections.Counter[str] = collections.Counter()
        self._first: dict[str, str] = {}

    def add(self, what: str, where: str, count: int = 1) -> None:
        if count:
            self._counts[what] += count
            self._first.setdefault(what, where)

    def __bool__(self) -> bool:
        return bool(self._counts)

    def __iter__(self) -> Iterator[tuple[str, int, str]]:
        """(what, how often, where first), by name."""
        return ((what, n, self._first[what]) for what, n in sorted(self._counts.items()))

    def __str__(self) -> str:
        return "; ".join(f"{count} {what} (first: {first})" for what, count, first in self)


def relative_files(folder: str, suffixes: Sequence[str]) -> list[Path]:
    """Files below a folder with one of these suffixes, sorted, relative to it.

    Raises:
        FileNotFoundError: if there is no such folder.
    """
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"folder {folder} not found")
    found = []
    for root, folders, names in os.walk(folder):
        folders.sort()
        found += [Path(root, x) for x in names if os.path.splitext(x)[1].lower() in suffixes]
    # Regular files only: a pipe or a device would never end.
    return sorted(path.relative_to(folder) for path in found if path.is_file())


def find_images(folder: str) -> dict[str, str]:
    """Path without suffix -> path of every image below a folder, relative to it."""
    files = relative_files(folder, IMAGE_SUFFIXES)
    return {path.with_suffix("").as_posix(): path.as_posix() for path in files}


def listed_image_size(path: Path, problems: Problems) -> tuple[int, int] | None:
    """(height, width) from an image's header, as it is shown; None if it is no image."""
    try:
        return image_size(str(path))
    except ImageError as error:
        problems.add("images that cannot be read, left out", f"{path}: {error.reason}")
        return None


def list_images(paths: Sequence[str | Path]) -> list[Path]:
    """The files named, and the pictures below the folders named, in order.

    Raises:
        FileNotFoundError: for a path that is not there.
        ValueError: if there is no picture at all.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_file():
            files.append(path)
        elif path.is_dir():
            files += [path / name for name in relative_files(str(path), IMAGE_SUFFIXES)]
        else:
            raise FileNotFoundError(f"{path} is neither a picture nor a folder")
    if not files:
        raise ValueError(
            f"no pictures in {[str(p) for p in paths]}; looked for {', '.join(IMAGE_SUFFIXES)}"
        )
    return files
