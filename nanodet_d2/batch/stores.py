"""Where files lie: on this machine, or at an address of fsspec (s3://, gs://, https://, …)."""

from __future__ import annotations

import functools
import glob
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Optional, Protocol, cast

File = tuple[str, Optional[int]]  # its name, and its bytes if they are known
_ON_DISK, _REMOTE = "*?[", "*["  # what makes a pattern; "?" begins the query of an address


class Store(Protocol):
    """What the pictures of a run are found and read by."""

    def is_folder(self, name: str) -> bool: ...

    def is_there(self, name: str) -> bool: ...

    def matches(self, pattern: str) -> list[str]:
        """What a pattern matches, sorted."""
        ...

    def files(self, folder: str) -> Iterator[File]:
        """All files below a folder; in each folder in the order of their names."""
        ...

    def size(self, name: str) -> int | None:
        """Bytes of a file; None where it is not there, or asking would take long."""
        ...

    def open(self, name: str) -> BinaryIO:
        """A file to read and to seek in."""
        ...


def is_remote(name: str) -> bool:
    return "://" in name


def is_pattern(name: str) -> bool:
    return any(x in name for x in (_REMOTE if is_remote(name) else _ON_DISK))


def store_of(name: str) -> Store:
    """The store of a path or address.

    Raises:
        ValueError: for an address of a kind that fsspec does not know.
        ImportError: where fsspec, or its package for such addresses, is not installed.
    """
    return remote(name.partition("://")[0]) if is_remote(name) else DISK


def tidy(name: str) -> str:
    """One spelling for ``./a`` and ``a/``; of an address only a slash at the end goes."""
    return name.rstrip("/") if is_remote(name) else str(Path(name))


class Disk:
    """Files of this machine. Links to folders are not followed, as by ``predict``."""

    def is_folder(self, name: str) -> bool:
        return os.path.isdir(name)

    def is_there(self, name: str) -> bool:
        return os.path.lexists(name)

    def matches(self, pattern: str) -> list[str]:
        return sorted(glob.glob(pattern, recursive=True))

    def files(self, folder: str) -> Iterator[File]:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda x: x.name)
        for entry in entries:
            name = entry.name if folder == "." else os.path.join(folder, entry.name)
            if entry.is_dir(follow_symlinks=False):
                yield from self.files(name)
            elif not entry.is_dir():
                yield name, self.size(name)

    def size(self, name: str) -> int | None:
        try:
            return os.stat(name).st_size
        except OSError:  # reading it will tell
            return None

    def open(self, name: str) -> BinaryIO:
        if not os.path.isfile(name):  # a pipe or a device would never end
            raise OSError("no such file" if not os.path.exists(name) else "not a regular file")
        return open(name, "rb")


class Remote:
    """Files behind fsspec, which takes keys and settings from its own configuration."""

    def __init__(self, files: Any):
        self._fs = files

    def _path(self, name: str) -> str:
        return cast(str, self._fs._strip_protocol(name))

    def is_folder(self, name: str) -> bool:
        return bool(self._fs.isdir(self._path(name)))

    def is_there(self, name: str) -> bool:
        return bool(self._fs.exists(self._path(name)))

    def matches(self, pattern: str) -> list[str]:
        return sorted(map(self._fs.unstrip_protocol, self._fs.glob(self._path(pattern))))

    def files(self, folder: str) -> Iterator[File]:
        return self._below(self._path(folder))

    def _below(self, folder: str) -> Iterator[File]:
        for entry in sorted(self._fs.ls(folder, detail=True), key=lambda x: x["name"]):
            if entry["name"].rstrip("/") == folder.rstrip("/"):
                continue  # the mark of an object store for the folder itself
            if entry["type"] == "directory":
                yield from self._below(entry["name"])
            else:
                yield self._fs.unstrip_protocol(entry["name"]), entry.get("size")

    def size(self, name: str) -> int | None:
        return None  # a request for each of millions of lines

    def open(self, name: str) -> BinaryIO:
        return cast(BinaryIO, self._fs.open(self._path(name), "rb"))


DISK = Disk()


@functools.cache
def remote(scheme: str) -> Remote:
    """The store of addresses that begin with ``scheme://``."""
    if "::" in scheme:
        raise ValueError(f"{scheme}://: chained addresses are not taken; allowed: s3://, gs://, …")
    try:
        import fsspec
    except ImportError as error:
        raise ImportError(f"{scheme}:// addresses need fsspec: pip install fsspec") from error
    return Remote(fsspec.filesystem(scheme))
