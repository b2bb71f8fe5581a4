"""Pictures that INT8 is calibrated on: some of a folder, read one at a time."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar, overload

import numpy as np

from nanodet_d2.runtime.files import list_images
from nanodet_d2.runtime.images import load_image

logger = logging.getLogger(__name__)

T = TypeVar("T")

DEFAULT_COUNT = 300  # beyond so many, ranges of activations hardly change


def calibration_pictures(folder: Path, count: int) -> list[Path]:
    """So many of a folder's pictures, spread evenly over all of them.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if it holds no picture.
    """
    found = list_images([folder])
    chosen = spread(found, count)
    logger.info("INT8: calibrating on %d of the %d pictures in %s", len(chosen), len(found), folder)
    return chosen


def spread(some: Sequence[T], count: int) -> list[T]:
    """So many, at even distances and in order; all where there are no more."""
    count = min(count, len(some))
    return [some[i * len(some) // count] for i in range(count)]


def hash_names(paths: Sequence[Path]) -> str:
    """SHA-256 of the sorted file names, one a line: the same pictures in another folder are the
    same."""
    names = "\n".join(sorted(path.name for path in paths))
    return hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()


class Samples(Sequence[np.ndarray]):
    """Inputs of a network, each made of its picture whenever it is asked for.

    Args:
        paths: of the pictures.
        prepare: makes an input of an image (H, W, 3) uint8 BGR.
    """

    def __init__(self, paths: Sequence[Path], prepare: Callable[[np.ndarray], np.ndarray]):
        self.paths = paths
        self.prepare = prepare

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> Samples: ...
    def __getitem__(self, index: int | slice) -> np.ndarray | Samples:
        if isinstance(index, slice):
            return Samples(self.paths[index], self.prepare)
        return self.prepare(load_image(self.paths[index]))
