"""Images that show nearly the same, found by what they look like."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from tqdm import tqdm

from nanodet_d2.runtime.images import ImageError

from .images import read_image

SIDE = 24  # of the grid of differences
# Cosine of two images' differences from which on they show nearly the same. Of a set of blood cells
# and one of playing cards, copies (a quarter to one and a half of the size, JPEG of quality 20 and
# above) and photographs of one burst reach 0.94 and above, all others at most 0.67.
MIN_COSINE = 0.9
_MIN_CONTRAST = 0.5  # grey levels between cells, on average: below, there is nothing to tell by
_BLOCK = 512  # images that are compared with all before them at once
_BAR_AFTER = 3.0  # seconds


def look(path: str) -> np.ndarray | None:
    """How brightness changes between the cells of a small image, whatever its size and exposure.

    Returns:
        (2 * SIDE * (SIDE + 1),) float16 of length 1; None for an image that cannot be read, or of
        one colour.
    """
    try:
        image = read_image({"file_name": path}, "BGR", at_least=(8 * SIDE, 8 * SIDE))
    except ImageError:
        return None
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.float32)
    cells = cv2.resize(grey, (SIDE + 1, SIDE + 1), interpolation=cv2.INTER_AREA)
    changes = np.concatenate([np.diff(cells, axis=axis).ravel() for axis in (0, 1)])
    length = float(np.linalg.norm(changes))
    if length < _MIN_CONTRAST * changes.size**0.5:
        return None
    return (changes / length).astype(np.float16)


def looks(paths: Sequence[str], *, what: str) -> list[np.ndarray | None]:
    """:func:`look` of each path, with a progress bar where it takes long."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        bar = tqdm(pool.map(look, paths), what, len(paths), unit="image", delay=_BAR_AFTER)
        return list(bar)


def look_alikes(found: Sequence[np.ndarray | None]) -> list[list[int]]:
    """Groups of two and more images that show nearly the same, from one to the next of them.

    Args:
        found: of :func:`looks`.

    Returns:
        indices, each in at most one group, ascending.
    """
    known = [i for i, x in enumerate(found) if x is not None]
    if not known:
        return []
    changes = np.stack([x for x in found if x is not None])
    group = np.arange(len(known))  # of each image: the first that is in it
    for start in range(0, len(known), _BLOCK):
        block = changes[start : start + _BLOCK].astype(np.float32)
        for before in range(0, start + 1, _BLOCK):
            cosines = block @ changes[before : before + _BLOCK].astype(np.float32).T
            for i in np.flatnonzero((cosines >= MIN_COSINE).any(axis=1)):
                alike = before + np.flatnonzero(cosines[i] >= MIN_COSINE)
                joined = np.unique(group[[start + i, *alike]])
                if len(joined) > 1:
                    group[np.isin(group, joined)] = joined[0]
    order = np.argsort(group, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
    return [[known[i] for i in part] for part in parts if len(part) > 1]
