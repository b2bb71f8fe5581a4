"""From pictures to rows: the one function that all engines run.

One picture a call of the detector, whatever the file allows: another batch could round another way,
and then the rows of a picture would depend on its neighbours.
"""

from __future__ import annotations

import json
import re
import time
from typing import Any

import numpy as np

from nanodet_d2.runtime import Detector
from nanodet_d2.runtime.images import image_error, printable, read_bytes, read_file
from nanodet_d2.runtime.results import picture_row

from .items import Item
from .stores import is_remote, store_of

MAX_BYTES = 1 << 29  # of a picture that is read whole, from an archive or over a network
_WAITS = (0.2, 2.0)  # seconds before a remote file is asked for again
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{4,}")  # in memory: another one each time


def row_of(item: Item, detector: Detector) -> dict[str, Any]:
    """The row of a picture, with what is wrong if it cannot be read.

    Raises:
        Exception: whatever the detector does, on a picture that was read.
    """
    try:
        image = load(item, max_pixels=detector.max_pixels)
    except ValueError as error:
        return failed_row(item, getattr(error, "reason", "") or str(error))
    row = picture_row(item.name, detector(image))
    detections = row.pop("detections")
    return {**row, "error": None, "detections": detections}


def failed_row(item: Item, reason: str) -> dict[str, Any]:
    """The row of a picture of which nothing is known but why."""
    text = printable(_ADDRESS.sub("0x…", " ".join(reason.split())))
    return {"file_name": item.name, "width": None, "height": None, "error": text, "detections": []}


def line_of(row: dict[str, Any]) -> bytes:
    return json.dumps(row).encode() + b"\n"


def load(item: Item, *, max_pixels: int) -> np.ndarray:
    """The picture (H, W, 3) uint8 BGR.

    Raises:
        ImageError: if it cannot be read.
    """
    if item.problem is None and item.archive is None and not is_remote(item.name):
        return read_file(item.name, max_pixels=max_pixels)
    try:
        data = content(item)
    except Exception as error:  # storage raises anything
        raise image_error(item.name, error) from error
    return read_bytes(data, item.name, max_pixels=max_pixels)


def content(item: Item) -> bytes:
    """The bytes of a picture's file.

    Raises:
        OSError: if they cannot be read; and what fsspec's storages raise.
    """
    if item.problem is not None:
        raise OSError(item.problem)
    if item.size is not None and item.size > MAX_BYTES:
        raise OSError(f"{item.size} bytes; allowed: {MAX_BYTES}")
    source = item.archive or item.name
    for wait in _WAITS if is_remote(source) else ():
        try:
            return _read(item, source)
        except (FileNotFoundError, PermissionError):
            raise
        except OSError:  # of a network, most likely
            time.sleep(wait)
    return _read(item, source)


def _read(item: Item, source: str) -> bytes:
    with store_of(source).open(source) as file:
        if item.archive is None:
            data = file.read(MAX_BYTES + 1)
            if len(data) > MAX_BYTES:
                raise OSError(f"more than {MAX_BYTES} bytes")
            return data
        file.seek(item.offset)
        data = file.read(item.size or 0)
    if len(data) != item.size:
        raise OSError(f"the archive breaks off after {len(data)} of its {item.size} bytes")
    return data
