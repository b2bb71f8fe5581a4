"""Engines that print what nobody asked for, also to where a command's own results go."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import sys
from collections.abc import Iterator, Sequence

STDOUT, STDERR = 1, 2


@contextlib.contextmanager
def silence(*descriptors: int) -> Iterator[None]:
    """In here what is printed to ``STDOUT`` or ``STDERR``, by native code as well, is dropped.

    That of the whole process, thus of its other threads, too. Only where the system has file
    descriptors as POSIX has. What an imported package sets up of the root logger is taken back.
    """
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        with _redirected(descriptors) if os.name == "posix" else contextlib.nullcontext():
            yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


@contextlib.contextmanager
def _redirected(descriptors: Sequence[int]) -> Iterator[None]:
    _flush()
    before = {x: os.dup(x) for x in descriptors}
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for x in descriptors:
        os.dup2(nowhere, x)
    try:
        yield
    finally:
        _flush()
        for x, kept in before.items():
            os.dup2(kept, x)
            os.close(kept)
        os.close(nowhere)


def _flush() -> None:
    """Empty Python's and C's buffers, which end up wherever they are emptied."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    ctypes.CDLL(None).fflush(None)
