"""The models by name, and the one bound for how many requests are in the service at a time."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from nanodet_d2.runtime import Detector
from nanodet_d2.runtime.backends import backends
from nanodet_d2.runtime.detector import MAX_BATCH

from .limits import RETRY_AFTER, Limits, Refusal
from .metrics import Metrics
from .pool import Pool

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)  # goes into addresses as it is
_NAMED = re.compile(rf"({_NAME.pattern})=(.+)", re.ASCII)
CLOSE_SECONDS = 5.0  # for calls of detectors whose requests have ended
Open = Callable[[], Detector]


def named(sources: Sequence[str]) -> dict[str, str]:
    """Sources by name, of ``NAME=SOURCE`` or ``SOURCE``, which has the name of its file.

    A file whose name looks like the former is given as ``./name``.

    Raises:
        ValueError: for a name that is none, or there twice.
    """
    found: dict[str, str] = {}
    for text in sources:
        given = _NAMED.fullmatch(text)
        name, source = (given[1], given[2]) if given else (_stem(text), text)
        if _NAME.fullmatch(name) is None:
            raise ValueError(f"{text} has no name for an address; give one: NAME={text}")
        if name in found:
            raise ValueError(f"two models are named {name}; give other names: NAME={text}")
        found[name] = source
    return found


def _stem(source: str) -> str:
    """The file's name without what its format adds."""
    stems = [stem for x in backends().values() if (stem := x.stem(source)) is not None]
    return Path(min(stems, key=len)).name if stems else Path(source).stem


class Service:
    """Models that detect, and how many requests they may have.

    Args:
        models: how to open a detector of each; each thread opens one.
        limits: of requests.
        workers: threads of each model.
        threads: of the engine in each of them, which OpenCV then uses, too.
        max_batch: pictures of a call of a detector.

    Attributes:
        pools: by the model's name.
        default: the first model's name.

    Raises:
        ValueError, ImportError, FileNotFoundError: as ``Detector``, and for a number out of range.
    """

    def __init__(
        self,
        models: Mapping[str, Open],
        *,
        limits: Limits,
        workers: int,
        threads: int = 1,
        max_batch: int = 1,
    ):
        for number, what in ((workers, "workers"), (threads, "threads")):
            if number < 1:
                raise ValueError(f"{what} {number}; allowed: 1 or more")
        if not 1 <= max_batch <= MAX_BATCH:
            raise ValueError(f"max_batch {max_batch}; allowed: 1 to {MAX_BATCH}")
        cv2.setNumThreads(threads)
        detectors = {
            name: [_opened(name, model, max_batch) for _ in range(workers)]
            for name, model in models.items()
        }
        self.limits = limits
        self.busy = 0
        self.metrics = Metrics(lambda: self.busy)
        self.pools = {
            name: Pool(x, max_batch=max_batch, watch=functools.partial(self.metrics.called, name))
            for name, x in detectors.items()
        }
        self.default = next(iter(self.pools))

    @property
    def healthy(self) -> bool:
        """Whether all models can go on; else only a new process can."""
        return all(pool.healthy for pool in self.pools.values())

    @property
    def ready(self) -> bool:
        """Whether a request that came now would be taken."""
        return self.healthy and self.busy < self.limits.queue

    def pool(self, name: str) -> Pool:
        """The pool of a model.

        Raises:
            Refusal: 404 for another name.
        """
        if name not in self.pools:
            raise Refusal(404, f"no model has that name; there are: {', '.join(self.pools)}")
        return self.pools[name]

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """A place for a request, before anything of its body is read; for one thread.

        Raises:
            Refusal: 429 if all are taken.
        """
        if self.busy >= self.limits.queue:
            reason = f"{self.busy} requests are in progress, as many as are allowed"
            raise Refusal(429, reason, retry_after=RETRY_AFTER)
        self.busy += 1
        try:
            yield
        finally:
            self.busy -= 1

    def describe(self) -> list[dict[str, Any]]:
        """What a client may know of the models."""
        firsts = {name: pool.detectors[0] for name, pool in self.pools.items()}
        return [
            {
                "name": name,
                "classes": list(x.class_names),
                "input_size": [x.metadata.input.height, x.metadata.input.width],
                "backend": x.backend,
                "score_threshold": x.metadata.score_threshold,
                "max_pixels": x.max_pixels,
            }
            for name, x in firsts.items()
        ]

    def close(self) -> bool:
        """End all threads; whether they did in time. Nothing may be submitted any more."""
        end = time.monotonic() + CLOSE_SECONDS
        return all([pool.close(end - time.monotonic()) for pool in self.pools.values()])


def _opened(name: str, model: Open, max_batch: int) -> Detector:
    """A detector that has run once: what fails at all fails before anybody is served."""
    detector = model()
    size = detector.metadata.input
    if max_batch > 1 and not size.dynamic:
        raise ValueError(f"model {name} takes one picture a call, max_batch is {max_batch}: "
                         "export it with --dynamic")  # fmt: skip
    detector(np.zeros((size.height, size.width, 3), np.uint8))
    return detector


def cores() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
