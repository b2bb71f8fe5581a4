"""Decoded images kept in shared memory or in a file, so that each is read once."""

from __future__ import annotations

import hashlib
import os
import shutil
import weakref
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import numpy as np

from nanodet_d2.runtime.images import ImageError

from .images import image_size
from .workers import SHARED_MEMORY

Record = dict[str, Any]
STORAGES = ("ram", "disk")
_GB = 10**9


class ImageCache:
    """Decoded images of a data set, filled as they are first read, by all worker processes.

    Memory or file are one block: heights and widths of all images (int32, zero until an image is
    there), then their pixels one after another. A file is found again by a later training if the
    images have not changed since.

    Args:
        storage: "ram" (shared memory, for each rank its own) or "disk".
        gigabytes: most that it may take (1 GB = 10^9 bytes).
        folder: of the file; needed for "disk".

    Raises:
        ValueError: for another storage, a budget that is not positive, or a missing folder.
    """

    def __init__(self, *, storage: str, gigabytes: float, folder: str | None = None):
        if storage not in STORAGES:
            raise ValueError(f"cache.storage {storage!r}; allowed: {', '.join(STORAGES)}")
        if not gigabytes > 0:
            raise ValueError(f"cache.gigabytes {gigabytes}; allowed: more than 0")
        if storage == "disk" and not folder:
            raise ValueError("cache.storage disk needs cache.folder=<where its file may be>")
        self.storage = storage
        self.gigabytes = gigabytes
        self.folder = folder

    def prepare(self, records: Sequence[Record], *, image_format: str) -> None:
        """Reserve the room for the images of all records.

        Args:
            records: with ``file_name``, and ``height`` and ``width``, else those of the files.
            image_format: in which they are going to be read.

        Raises:
            ValueError: if they need more than the budget, or than is free; with the numbers.
        """
        sizes = {record["file_name"]: _pixels(record) * 3 for record in records}
        self._index = {name: i for i, name in enumerate(sizes)}
        starts = np.cumsum([0, *sizes.values()])
        header = 8 * len(sizes)  # two int32 per image
        needed = header + int(starts[-1])
        path = None
        if self.storage == "disk" and self.folder:
            path = Path(self.folder) / f"images-{_fingerprint(sizes, image_format)}.bin"
        self._check_room(needed, len(sizes), path)
        self._starts = starts
        self._block = self._reserve(max(needed, 1), path)
        self._attach()

    def read(self, record: Record, reader: Callable[[Record], np.ndarray]) -> np.ndarray:
        """The record's image (H, W, 3) uint8, read-only; by ``reader`` if it is not there yet."""
        i = self._index[record["file_name"]]
        room = self._bytes[self._starts[i] : self._starts[i + 1]]
        if not self._shapes[i].all():
            image = reader(record)
            if image.nbytes != len(room):  # a reader of something else than the file's own pixels
                return image
            room[:] = image.reshape(-1)
            self._shapes[i] = image.shape[:2]  # last, so that no other process sees half an image
        height, width = self._shapes[i]
        image = room.reshape(height, width, 3)
        image.flags.writeable = False
        record.setdefault("height", int(height))
        record.setdefault("width", int(width))
        return image

    @property
    def shared_bytes(self) -> int:
        """Of shared memory, by each rank; 0 before it is prepared, and on disk."""
        block = getattr(self, "_block", None)
        return block.size if isinstance(block, SharedMemory) else 0

    def _attach(self) -> None:
        block = self._block
        buffer: Any  # memoryview or memmap
        if isinstance(block, SharedMemory):
            buffer = block.buf
        else:
            buffer = np.memmap(block, np.uint8, mode="r+")
        count = len(self._index)
        self._shapes: np.ndarray = np.ndarray((count, 2), np.int32, buffer)
        self._bytes: np.ndarray = np.ndarray(
            (int(self._starts[-1]),), np.uint8, buffer, offset=8 * count
        )

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_shapes", "_bytes")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """In a worker process that was not forked: the same block, not a copy of it."""
        self.__dict__.update(state)
        if hasattr(self, "_block"):
            self._attach()

    def _check_room(self, needed: int, count: int, path: Path | None) -> None:
        task = f"the image cache needs {needed / _GB:.2f} GB for {count} images"
        if needed > self.gigabytes * _GB:
            raise ValueError(f"{task}; allowed by cache.gigabytes: {self.gigabytes:g}")
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        where = path.parent if path else Path(SHARED_MEMORY)
        if where.is_dir():
            reserved = path.stat().st_size if path and path.is_file() else 0  # by an earlier one
            free = shutil.disk_usage(where).free + reserved
            if needed > free:
                raise ValueError(f"{task}; free in {where}: {free / _GB:.2f} GB")

    def _reserve(self, size: int, path: Path | None) -> SharedMemory | Path:
        if path is None:
            memory = SharedMemory(create=True, size=size)
            weakref.finalize(self, _release, memory, os.getpid())
            return memory
        with open(path, "ab") as file:  # made if it is not there; the ranks may do so at once
            os.posix_fallocate(file.fileno(), 0, size)
        return path


def _pixels(record: Record) -> int:
    if "height" in record and "width" in record:
        return int(record["height"]) * int(record["width"])
    try:
        height, width = image_size(record["file_name"])
    except ImageError:  # said when it is read, and then not kept
        return 0
    return height * width


def _fingerprint(names: Iterable[str], image_format: str) -> str:
    digest = hashlib.sha256(image_format.encode())
    for name in names:
        changed = os.stat(name) if os.path.isfile(name) else None
        state = (changed.st_size, changed.st_mtime_ns) if changed else ()
        digest.update(repr((name, *state)).encode())
    return digest.hexdigest()[:16]


def _release(memory: SharedMemory, owner: int) -> None:
    if os.getpid() == owner:  # not in a worker
        memory.unlink()
