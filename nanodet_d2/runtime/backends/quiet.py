"""Engines that print to standard output, where a command's own results go."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_stdout() -> Iterator[None]:
    """In here what native code prints to standard output is dropped.

    That of the whole process, thus of its other threads, too. Only where the system has file
    descriptors as POSIX has.
    """
    if os.name != "posix":
        yield
        return
    flush = ctypes.CDLL(None).fflush  # C's own buffer, which ends up wherever it is emptied
    sys.stdout.flush()
    flush(None)
    before, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        flush(None)
        os.dup2(before, 1)
        os.close(before)
        os.close(nowhere)
