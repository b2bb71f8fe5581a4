"""What an error of reading a checkpoint says: that the file is damaged, or nothing about it."""

from __future__ import annotations

import os
import pickle
import re
import struct
import tarfile
import zipfile

import torch

_ZIP = b"PK\x03\x04"  # by which torch.load tells its own format from the older ones

# What unpickling and rebuilding tensors raise on content that is wrong, whoever reads it.
_OF_CONTENT = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    tarfile.TarError,
    struct.error,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ImportError,
    ArithmeticError,
    AssertionError,
    RecursionError,
)
# The same of torch, which has RuntimeError for almost everything.
_OF_TORCH = re.compile(
    r"PytorchStreamReader|corrupt|unexpected EOF|wrong byte size|out of bounds for storage"
    r"|negative dimension"
)
_NO_MEMORY = re.compile(r"DefaultCPUAllocator|cannot allocate memory|out of memory|bad_alloc", re.I)
_ASKED = re.compile(r"tried to allocate (\d+) bytes")


class DamagedError(ValueError):
    """A checkpoint's bytes or its content are wrong, on whatever machine it is read."""


def says_nothing_of_the_file(error: Exception, path: str) -> bool:
    """Whether an error is of the machine: no memory, or a disk that does not give the file away.

    No tensor is larger than its file: where more than that could not be had, the file is wrong.
    """
    if isinstance(error, (MemoryError, OSError, torch.cuda.OutOfMemoryError)):
        return True
    if not isinstance(error, RuntimeError) or not _NO_MEMORY.search(str(error)):
        return False
    asked = _ASKED.search(str(error))
    return asked is None or int(asked[1]) <= os.path.getsize(path)


def says_damaged(error: Exception, path: str) -> bool:
    """Whether an error tells for certain that the file is wrong; others leave it open."""
    if isinstance(error, _OF_CONTENT):
        return True
    if not isinstance(error, RuntimeError) or says_nothing_of_the_file(error, path):
        return False
    return bool(_OF_TORCH.search(str(error)) or _NO_MEMORY.search(str(error)))


def check_records(path: str) -> None:
    """Refuse a zip file that would become more in memory than it is on disk, before it is read.

    ``torch.save`` stores its records as they are. Compressed ones can grow a thousandfold, and
    ones that lie on top of each other add up to more than the file. The older formats are read in
    a row and cannot grow.

    Raises:
        ValueError: for such a file.
        zipfile.BadZipFile: for one without an intact list of records.
    """
    with open(path, "rb") as file:
        if file.read(len(_ZIP)) != _ZIP:
            return
        size = os.fstat(file.fileno()).st_size
        with zipfile.ZipFile(file) as archive:
            records = archive.infolist()
    compressed = [
        x
        for x in records
        if x.compress_type != zipfile.ZIP_STORED or x.compress_size != x.file_size
    ]
    if compressed:
        worst = max(compressed, key=lambda x: x.file_size)
        raise ValueError(
            f"its record {worst.filename!r} is compressed, {worst.compress_size} bytes that "
            f"become {worst.file_size}; allowed: stored as it is, as torch.save does"
        )
    declared = sum(x.file_size for x in records)
    if declared > size:
        raise ValueError(f"its records declare {declared} bytes, but the file has {size}")
