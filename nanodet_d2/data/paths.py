"""Image paths that annotation files name: inside the image folder, unless allowed."""

from __future__ import annotations

import os
from collections.abc import Sequence

_ALLOW = "data.allow_outside=true allows it"


def image_path(root: str, name: str, *, allow_outside: bool = False) -> str:
    """Path of an image that a file names relative to ``root``.

    Raises:
        ValueError: for an absolute path or one that leads out of ``root`` by ``..``, unless
            ``allow_outside``.
    """
    leaves = os.path.isabs(name) or os.path.normpath(name).split(os.sep)[0] == os.pardir
    if leaves and not allow_outside:
        raise ValueError(f"{name!r} is outside the image folder {root} ({_ALLOW})")
    return os.path.join(root, name)


def require_files(
    paths: Sequence[str], root: str, source: str, *, allow_outside: bool = False
) -> None:
    """Check that the images are there, and no symbolic link leads out of ``root``.

    Lists each folder once, which is fast on any disk. ``root`` may be a link itself. Nothing is
    checked below a ``root`` that is a URL.

    Raises:
        FileNotFoundError: for missing images; the message names the first three.
        ValueError: for images outside, unless ``allow_outside``.
    """
    if "://" in root:
        return
    absent = missing_files(paths)
    missing = [path for path in paths if path in absent]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of the {len(paths)} images of {source} are missing, "
            f"the first: {', '.join(missing[:3])}"
        )
    outside = [] if allow_outside else files_outside(paths, root)
    if outside:
        raise ValueError(
            f"{len(outside)} of the {len(paths)} images of {source} are links that lead out of "
            f"the image folder {root}, the first: {', '.join(outside[:3])} ({_ALLOW})"
        )


def missing_files(paths: Sequence[str]) -> set[str]:
    """Those of the paths that name nothing."""
    listing = _Listing()
    return {path for path in paths if listing.find(path) is None}


def files_outside(paths: Sequence[str], root: str) -> list[str]:
    """Those of the paths that a symbolic link leads out of ``root``."""
    listing, real_root = _Listing(), os.path.join(os.path.realpath(root), "")
    inside: dict[str, bool] = {}  # folder -> whether it is
    outside = []
    for path in paths:
        folder = os.path.dirname(path)
        if folder not in inside:
            inside[folder] = os.path.join(os.path.realpath(folder), "").startswith(real_root)
        is_link = listing.find(path)
        if not inside[folder] or (is_link and not os.path.realpath(path).startswith(real_root)):
            outside.append(path)
    return outside


class _Listing:
    """Folders' entries, each folder read once."""

    def __init__(self) -> None:
        self._folders: dict[str, dict[str, bool]] = {}

    def find(self, path: str) -> bool | None:
        """Whether the path is a symbolic link; None if there is no such path."""
        folder, name = os.path.split(path)
        if folder not in self._folders:
            self._folders[folder] = {}
            if "\0" not in folder and os.path.isdir(folder):
                with os.scandir(folder) as entries:
                    self._folders[folder] = {x.name: x.is_symlink() for x in entries}
        return self._folders[folder].get(name)
