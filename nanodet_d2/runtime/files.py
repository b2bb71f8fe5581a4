"""Files and folders of pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


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
