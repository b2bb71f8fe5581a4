"""The files in a tar archive, as WebDataset writes them: where each lies, without reading it."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple


class Member(NamedTuple):
    """A file in an archive: ``size`` bytes from ``offset`` on."""

    name: str
    size: int
    offset: int


def members(file: BinaryIO) -> Iterator[Member]:
    """The regular files of an archive, in its order.

    Raises:
        ValueError: after those before the fault, if it is damaged or was cut off. ``tarfile``
            itself says nothing where a header is unreadable, it takes that for the end.
    """
    count, end = 0, 0
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                if member.isreg():
                    yield Member(member.name, member.size, member.offset_data)
                    count += 1
                archive.members = []  # type: ignore[attr-defined]  # it would keep all
            end = archive.offset
    except tarfile.TarError as error:
        raise ValueError(f"{error} after {count} files") from error
    file.seek(end)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise ValueError(f"it has no mark of its end after {count} files")
