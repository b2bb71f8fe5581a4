"""Files of a data set, and the list of what is wrong with them."""

from __future__ import annotations

import collections
import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, UnidentifiedImageError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
_EXIF_ORIENTATION = 0x0112
_EXIF_SIDEWAYS = (5, 6, 7, 8)  # orientations that swap height and width


class Problems:
    """How often each problem was met, and where first."""

    def __init__(self) -> None:
        self._counts: collections.Counter[str] = collections.Counter()
        self._first: dict[str, str] = {}

    def add(self, what: str, where: str) -> None:
        self._counts[what] += 1
        self._first.setdefault(what, where)

    def __bool__(self) -> bool:
        return bool(self._counts)

    def __str__(self) -> str:
        return "; ".join(
            f"{count} {what} (first: {self._first[what]})"
            for what, count in sorted(self._counts.items())
        )


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
    return sorted(path.relative_to(folder) for path in found)


def find_images(folder: str) -> dict[str, str]:
    """Path without suffix -> path of every image below a folder, relative to it."""
    files = relative_files(folder, IMAGE_SUFFIXES)
    return {path.with_suffix("").as_posix(): path.as_posix() for path in files}


def image_size(path: Path, problems: Problems) -> tuple[int, int] | None:
    """(height, width) from an image's header, as it is shown; None if it is no image."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            sideways = image.getexif().get(_EXIF_ORIENTATION) in _EXIF_SIDEWAYS
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError) as error:
        problems.add("images that cannot be read, left out", f"{path}: {error}")
        return None
    return (width, height) if sideways else (height, width)


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
