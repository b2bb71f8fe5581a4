"""The worker processes of a data loader: how many there may be, and how each starts."""

from __future__ import annotations

import dataclasses
import logging
import math
import multiprocessing
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
from detectron2.data.build import worker_init_reset_seed
from detectron2.utils import comm

logger = logging.getLogger(__name__)

SHARED_MEMORY = "/dev/shm"  # where Linux keeps it; containers often have 64 MB
PREFETCH = 2  # batches that each worker makes ahead, torch's default
_OVERHEAD = 16 * 1024  # bytes of a sample beside its image: its other tensors, a page or more each
_QUOTAS = (  # cgroup files of (quota, period), version 2 and 1
    ("/sys/fs/cgroup/cpu.max",),
    ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"),
)


@dataclasses.dataclass(frozen=True)
class Workers:
    """A number of worker processes, and why it is not the one that was wanted; empty if it is."""

    count: int
    reason: str = ""


def choose_num_workers(
    wanted: int | None,
    *,
    at_most: int,
    cores: int,
    ranks: int = 1,
    batch_bytes: int = 0,
    shared_bytes: int | None = None,
) -> Workers:
    """The number of workers of a rank's loader.

    They hand their batches over in shared memory, where each may have ``PREFETCH`` of them, beside
    the one in use. A write beyond what is free there ends the training with a bus error.

    Args:
        wanted: by the user; taken where its batches fit. None for as many as there are cores.
        at_most: if none is wanted.
        cores: that the processes of this host may use together.
        ranks: on this host, which share cores and memory.
        batch_bytes: of a rank's batch; 0 if unknown.
        shared_bytes: free in shared memory; None if unknown.

    Raises:
        ValueError: for a negative number.
    """
    if wanted is not None and wanted < 0:
        raise ValueError(f"num_workers {wanted}; allowed: 0 or more, or null for the cores' number")
    count = min(at_most, max(cores // ranks, 1)) if wanted is None else wanted
    if not batch_bytes or shared_bytes is None or not count:
        return Workers(count)
    batches = shared_bytes // ranks // batch_bytes
    fitting = max(batches - 1, 0) // PREFETCH
    if fitting >= count:
        return Workers(count)
    needed = (PREFETCH * count + 1) * batch_bytes * ranks
    return Workers(
        fitting,
        f"{fitting} worker processes in place of {count}: their batches need {_mb(needed)} of "
        f"shared memory, free in {SHARED_MEMORY}: {_mb(shared_bytes)}. A container gets more by "
        "docker --shm-size=8g (or --ipc=host)",
    )


def workers_of_loader(
    name: str,
    wanted: int | None,
    *,
    at_most: int,
    mapper: Callable[..., Any],
    batch_size: int = 1,
    sizes: Sequence[Sequence[int]] = (),
    reserved: int = 0,
) -> int:
    """:func:`choose_num_workers` on this host, with a warning where the wanted number cannot be.

    Args:
        name: of the loader's section in a config.
        mapper: whose ``size`` tells how large its samples are; nothing is known of another's.
        batch_size: of one rank.
        sizes: (height, width)s in place of the mapper's.
        reserved: bytes of the shared memory that are still going to be filled, by each rank.
    """
    free = free_shared_memory()
    ranks = comm.get_local_size()
    chosen = choose_num_workers(
        wanted,
        at_most=at_most,
        cores=usable_cores(),
        ranks=ranks,
        batch_bytes=batch_size * _sample_bytes(mapper, sizes),
        shared_bytes=None if free is None else max(free - reserved * ranks, 0),
    )
    if chosen.reason and comm.is_main_process():
        logger.warning("%s.num_workers: %s.", name, chosen.reason)
    return chosen.count


def start_worker(worker_id: int) -> None:
    """Of the workers of a loader: what each does first."""
    worker_init_reset_seed(worker_id)
    cv2.setNumThreads(0)  # the workers are the parallelism
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when the training is killed.

    torch looks at the parent's id for that, which under the start method "forkserver", Python
    3.14's default, is not the training's: its workers would wait for ever.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _sample_bytes(mapper: Any, sizes: Sequence[Sequence[int]]) -> int:
    """Of the largest sample; 0 if unknown."""
    try:
        areas = [height * width for height, width in sizes or [mapper.size]]
    except (AttributeError, ValueError):  # another mapper, or one that keeps the images' sizes
        return 0
    return 3 * max(areas) + _OVERHEAD


def usable_cores() -> int:
    """Cores that this process may use: a scheduler or a container may have fewer than the host."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        cores = os.cpu_count() or 1
    return max(min(cores, math.ceil(_quota())), 1) if _quota() else cores


def _quota() -> float:
    """Cores' worth of time that this process's control group may use; 0 for no limit."""
    for files in _QUOTAS:
        try:
            words = " ".join(Path(file).read_text() for file in files).split()
            quota, period = int(words[0]), int(words[1])
        except (OSError, ValueError, IndexError):  # no such files, or "max"
            continue
        return quota / period if quota > 0 and period > 0 else 0.0
    return 0.0


def free_shared_memory() -> int | None:
    """Bytes; None where it is no folder."""
    return shutil.disk_usage(SHARED_MEMORY).free if os.path.isdir(SHARED_MEMORY) else None


def _mb(count: int) -> str:
    return f"{count / 1e6:.0f} MB"
