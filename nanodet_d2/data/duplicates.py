"""Images that show nearly the same, found by what they look like."""

from __future__ import annotations

import collections
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from tqdm import tqdm

from nanodet_d2.runtime.images import ImageError

from .images import read_image

SIDE = 16  # of the grid whose neighbours are compared
MAX_BITS = 12  # of the SIDE² bits that differ in copies which were scaled or saved again
_BANDS = 16  # more than MAX_BITS: two copies agree in one of them as a whole
_BAR_AFTER = 3.0  # seconds


def look(path: str) -> np.ndarray | None:
    """An image's difference hash: whether each cell of a grid is brighter than that to its left.

    Krawetz 2013, "Kind of Like That"; here of ``SIDE`` x ``SIDE`` cells.

    Returns:
        (SIDE² / 8,) uint8; None for an image that cannot be read.
    """
    try:
        image = read_image({"file_name": path}, "BGR", at_least=(8 * SIDE, 8 * SIDE))
    except ImageError:
        return None
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    cells = cv2.resize(grey, (SIDE + 1, SIDE), interpolation=cv2.INTER_AREA)
    return np.packbits(cells[:, 1:] > cells[:, :-1])


def looks(paths: Sequence[str], *, what: str) -> list[np.ndarray | None]:
    """:func:`look` of each path, with a progress bar where it takes long."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        bar = tqdm(pool.map(look, paths), what, len(paths), unit="image", delay=_BAR_AFTER)
        return list(bar)


def near_duplicates(hashes: Sequence[np.ndarray | None]) -> list[tuple[int, int]]:
    """Pairs of indices (a < b), each b once, whose hashes differ by at most ``MAX_BITS``."""
    buckets: dict[tuple[int, bytes], list[int]] = collections.defaultdict(list)
    pairs = []
    for b, code in enumerate(hashes):
        if code is None:
            continue
        bands = [(i, part.tobytes()) for i, part in enumerate(np.split(code, _BANDS))]
        known = sorted({a for band in bands for a in buckets[band]})
        if known:
            others = np.stack([hashes[a] for a in known])
            bits = np.unpackbits(others ^ code, axis=1).sum(axis=1)
            if bits.min() <= MAX_BITS:
                pairs.append((known[int(bits.argmin())], b))
        for band in bands:
            buckets[band].append(b)
    return pairs
