"""Threads that detect, each with a detector of its own, fed by one queue.

Threads use all processors, since engines, OpenCV and Pillow let go of Python's lock while they
compute. A thread takes what is waiting, up to a batch, and never waits for a batch to fill: under
load the next one fills while the last is computed, and without load nobody waits.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import numpy as np

from nanodet_d2.runtime import Detector
from nanodet_d2.runtime.images import ImageError, read_bytes
from nanodet_d2.runtime.results import picture_row

MAX_FAILURES = 20  # pictures in a row: it will not be the pictures
logger = logging.getLogger(__name__)
Row = dict[str, Any]
Watch = Callable[[int, float], None]


class DetectorFailed(RuntimeError):
    """A picture was read, and the detector raised; the log says what."""


class Job(NamedTuple):
    """A picture's file, and where its row is awaited."""

    name: str
    data: bytes
    row: Future[Row]


class Pool:
    """Detects in pictures by threads, one for each detector.

    Args:
        detectors: of the same model.
        max_batch: pictures of a call, if as many are waiting.
        watch: is told the pictures and seconds of each call.
    """

    def __init__(self, detectors: Sequence[Detector], *, max_batch: int, watch: Watch):
        assert detectors and max_batch >= 1
        self.detectors = list(detectors)
        self._max_batch = max_batch
        self._watch = watch
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._failures = 0  # in a row, of all threads
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, args=(x,), daemon=True, name=f"detector-{i}")
            for i, x in enumerate(detectors)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def healthy(self) -> bool:
        """Whether all threads are there, and pictures do not fail one after the other."""
        alive = all(thread.is_alive() for thread in self._threads)
        return alive and self._failures < MAX_FAILURES

    def submit(self, name: str, data: bytes) -> Future[Row]:
        """The row of a picture, as ``predict`` writes it; cancelled, it is not computed.

        The future raises ``ImageError`` for what is no picture, else ``DetectorFailed``.
        """
        if self._closed:
            raise RuntimeError("the pool is closed")
        job = Job(name, data, Future())
        self._jobs.put(job)
        return job.row

    def close(self, seconds: float) -> bool:
        """End when what was submitted is done; whether all threads did within some seconds."""
        end = time.monotonic() + seconds
        if not self._closed:
            self._closed = True
            for _ in self._threads:
                self._jobs.put(None)
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self, detector: Detector) -> None:
        while True:
            jobs = self._take()
            if not jobs:
                return
            self._answer([x for x in jobs if x.row.set_running_or_notify_cancel()], detector)
            del jobs  # pictures do not stay until the next ones come

    def _take(self) -> list[Job]:
        """What is waiting, at least one; nothing at the end."""
        job = self._jobs.get()
        jobs: list[Job] = []
        while job is not None:
            jobs.append(job)
            if len(jobs) == self._max_batch:
                return jobs
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return jobs
        if jobs:
            self._jobs.put(None)  # for this thread's next turn
        return jobs

    def _answer(self, jobs: Sequence[Job], detector: Detector) -> None:
        """Give each job its row or what is wrong; nothing is raised."""
        readable: list[Job] = []
        images: list[np.ndarray] = []
        for job in jobs:
            try:
                images.append(read_bytes(job.data, job.name, max_pixels=detector.max_pixels))
                readable.append(job)
            except ImageError as error:
                job.row.set_exception(error)
        if images:
            self._detect(readable, images, detector)

    def _detect(self, jobs: list[Job], images: list[np.ndarray], detector: Detector) -> None:
        begin = time.perf_counter()
        try:
            found = detector(images)
            rows = [picture_row(job.name, x) for job, x in zip(jobs, found)]
        except Exception:
            if len(jobs) > 1:  # it may be one of them alone
                for job, image in zip(jobs, images):
                    self._detect([job], [image], detector)
                return
            logger.exception("the detector failed")
            self._failures += 1
            jobs[0].row.set_exception(DetectorFailed("the detector failed; the log says why"))
            return
        self._failures = 0
        self._watch(len(images), time.perf_counter() - begin)
        for job, row in zip(jobs, rows):
            job.row.set_result(row)
