"""Shards by processes of this machine."""

from __future__ import annotations

import itertools
import queue
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

from .plan import Shard
from .process import Guard
from .work import Work

Made = tuple[Shard, bytes]  # a shard and its rows, a line of json each


def run_local(shards: Sequence[Shard], work: Work, *, workers: int) -> Iterator[Made]:
    """The rows of shards, as they are done, by so many processes at a time.

    Raises:
        ValueError: for less than one worker.
        RuntimeError, …: as ``Guard``.
    """
    if workers < 1:
        raise ValueError(f"workers {workers}; allowed: 1 or more")
    guards = [Guard(work) for _ in range(min(workers, len(shards)))]
    idle: queue.SimpleQueue[Guard] = queue.SimpleQueue()
    for guard in guards:
        idle.put(guard)

    def make(shard: Shard) -> Made:
        guard = idle.get()
        try:
            return shard, guard(shard.items())
        finally:
            idle.put(guard)

    rest = iter(shards)
    pool = ThreadPoolExecutor(max(1, len(guards)))  # threads that wait for a process each
    try:
        running = {pool.submit(make, x) for x in itertools.islice(rest, 2 * len(guards))}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
            running |= {pool.submit(make, x) for x in itertools.islice(rest, len(done))}
    finally:
        for guard in guards:
            guard.stop()
        pool.shutdown(cancel_futures=True)
