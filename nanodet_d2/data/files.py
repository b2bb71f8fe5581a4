"""Files of a data set, and the list of what is wrong with them."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from pathlib import Path

from nanodet_d2.runtime.files import IMAGE_SUFFIXES, relative_files
from nanodet_d2.runtime.images import ImageError

from .images import image_size


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
