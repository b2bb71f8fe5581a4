"""A process that turns pictures into rows. It may die of one: that picture's row then says so."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

import cv2

from .items import Item
from .rows import failed_row, line_of, row_of
from .work import Work

ATTEMPTS = 2  # at a picture of which the process dies, and at opening the model
MAX_SECONDS = 300.0  # for a picture, or for opening the model
MAX_IN_A_ROW = 20  # pictures that the detector fails at: then it is not the pictures
READY, REFUSED, ROW, FAILED = "ready", "refused", "row", "failed"
logger = logging.getLogger(__name__)


class Died(Exception):
    """The process is gone; the message tells how."""


class Stopped(Exception):
    """The run is over."""


class Guard:
    """Has a process of its own for pictures, and starts another where that has died.

    A picture that takes the process with it ``ATTEMPTS`` times has a row that says so; the others
    lose nothing. Pictures that cannot be read are no fault: they have their rows by themselves.

    Args:
        seconds: that a picture may take.
    """

    def __init__(self, work: Work, *, seconds: float = MAX_SECONDS):
        self._work = work
        self._seconds = seconds
        self._process: Any = None
        self._connection: Connection | None = None
        self._in_a_row = 0
        self._stopped = False
        self._starting = threading.Lock()

    def __call__(self, items: Sequence[Item]) -> bytes:
        """The rows of pictures, a line of json each, in their order.

        Raises:
            ValueError: if the process has another model or other versions than the run.
            RuntimeError: if the model cannot be opened there, or fails picture after picture.
            Stopped: if :meth:`stop` was called meanwhile.
        """
        rows: list[bytes] = []
        attempts = 0
        while len(rows) < len(items):
            connection = self._ready()
            try:
                self._send(connection, items[len(rows) :])
                while len(rows) < len(items):
                    rows.append(self._receive(connection, self._seconds))
                    attempts = self._in_a_row = 0
            except Died as death:
                attempts += 1
                if attempts == ATTEMPTS:
                    rows.append(self._give_up(items[len(rows)], str(death)))
                    attempts = 0
        return b"".join(rows)

    def stop(self) -> None:
        """End the process; a call that is under way in another thread ends, too."""
        with self._starting:  # none begins after this
            self._stopped = True
            if self._process is not None:
                self._process.kill()

    def _give_up(self, item: Item, reason: str) -> bytes:
        self._in_a_row += 1
        if self._in_a_row == MAX_IN_A_ROW:
            raise RuntimeError(f"given up after {MAX_IN_A_ROW} pictures in a row: {reason}")
        logger.warning("%s: %s", item.name, reason)
        return line_of(failed_row(item, reason))

    def _ready(self) -> Connection:
        """The connection to a process whose model is open."""
        for attempt in range(1, ATTEMPTS + 1):
            if self._connection is not None:
                return self._connection
            try:
                self._start()
            except Died as death:
                if attempt == ATTEMPTS:
                    raise RuntimeError(f"the model cannot be opened: {death}") from death
        assert self._connection is not None
        return self._connection

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # engines have threads: no fork
        with self._starting:
            if self._stopped:
                raise Stopped()
            self._connection, theirs = context.Pipe()
            self._process = context.Process(target=serve, args=(theirs, self._work), daemon=True)
            self._process.start()
            theirs.close()
        self._receive(self._connection, MAX_SECONDS)

    def _send(self, connection: Connection, items: Sequence[Item]) -> None:
        try:
            connection.send(list(items))
        except OSError:
            raise self._death() from None

    def _receive(self, connection: Connection, seconds: float) -> bytes:
        try:
            if not connection.poll(seconds):
                raise self._death(f"it took more than {seconds:g} s")
            kind, content = connection.recv()
        except (EOFError, OSError):
            raise self._death() from None
        if kind == REFUSED:
            self._death()
            raise content
        if kind == FAILED:
            raise self._death(content)
        assert kind in (ROW, READY)
        return content

    def _death(self, reason: str = "") -> Exception:
        """End what may be left of the process."""
        process, connection = self._process, self._connection
        self._connection = None
        if reason:
            process.kill()
        process.join()
        if connection is not None:
            connection.close()
        if self._stopped:
            return Stopped()
        code = process.exitcode
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return Died(reason or f"its process died, {how}")


def serve(connection: Connection, work: Work) -> None:
    """What the process does: open the model, then a row for each picture of each list it is sent.

    It ends when the other end of the connection is closed, which a killed run's is.
    """
    os.dup2(2, 1)  # what libraries print is no output of the command
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is for the run, which ends this one
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            os.chdir(work.folder)
            cv2.setNumThreads(work.threads)
            detector = work.open()
        except Exception as error:
            connection.send((REFUSED, plain(error)))
            return
        connection.send((READY, b""))
        while True:
            for item in connection.recv():
                try:
                    row = row_of(item, detector)
                except Exception as error:  # who knows what state the engine is in
                    connection.send((FAILED, f"the detector failed: {_words(error)}"))
                    return
                connection.send((ROW, line_of(row)))


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def plain(error: Exception) -> Exception:
    """One that any process can read, of the kind that tells the command whose fault it is."""
    kinds = (FileNotFoundError, ImportError, ValueError)
    for kind in kinds:
        if isinstance(error, kind):
            return kind(str(error))
    return RuntimeError(_words(error))
