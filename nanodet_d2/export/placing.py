"""Files that are written aside, and come to their place only when all of them are good."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """A hidden folder beside a file, on its file system, that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix=".new-", dir=path.parent) as folder:
        yield Path(folder)


def move_all(source: Path, target: Path, *, last: str, suffix: str = "") -> None:
    """Move all that is in a folder into another one of the same file system, or nothing of it.

    What is there already under these names is replaced. Should it fail, or be stopped by Ctrl-C,
    everything is as it was before.

    Args:
        last: name of the file that makes the others a model: it is the first to be replaced and the
            last to come, so that at no moment it stands beside others' files.
        suffix: added to all names.
    """
    names = sorted((x.name for x in source.iterdir()), key=lambda name: (name == last, name))
    moves: list[tuple[Path, Path]] = []
    with folder_beside(target / last) as before:
        try:
            for name in reversed(names):
                if (target / (name + suffix)).exists():
                    _move(target / (name + suffix), before / name, moves)
            for name in names:
                _move(source / name, target / (name + suffix), moves)
        except BaseException:
            for origin, place in reversed(moves):
                if place.exists() and not origin.exists():
                    os.replace(place, origin)
            raise


def _move(origin: Path, place: Path, moves: list[tuple[Path, Path]]) -> None:
    moves.append((origin, place))  # first, as it may be stopped right after the move
    os.replace(origin, place)
