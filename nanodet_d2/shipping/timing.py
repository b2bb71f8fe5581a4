"""Times from an image to its boxes, taken in turns: one process, all files in each round.

A file is opened for its block of calls and closed after it. A hundred open engines would fill the
memory, and their threads would wait for each other's processors.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nanodet_d2.benchmark.measure import all_threads, block
from nanodet_d2.runtime import Detector

# Each block takes all of them, so that rounds differ by the machine's noise alone: once without
# being counted (TorchScript compiles, and where pixels go to is found out for each size), and once
# more.
PICTURES = 8

Open = Callable[[], Detector]
Rounds = list[list[float]]


def take_turns(
    files: Mapping[str, Open],
    images: Sequence[np.ndarray],
    times: Mapping[str, Rounds],
    *,
    rounds: int,
    threads: int,
    done: Callable[[], None],
) -> None:
    """Add to each file's times until it has so many rounds, in another order in each round.

    Args:
        files: what opens each of them.
        images: (H, W, 3) uint8 BGR.
        times: by file, milliseconds of the counted calls of each round so far.
        threads: of the engines, torch and OpenCV.
        done: called after each block.
    """
    orders = random.Random(0)
    with all_threads(threads):
        for number in range(rounds):
            order = orders.sample(sorted(files), len(files))
            for name in order:
                if len(times[name]) <= number:
                    times[name].append(_time(files[name](), images))
                    done()


def blocks_left(times: Mapping[str, Rounds], rounds: int) -> int:
    return sum(max(0, rounds - len(some)) for some in times.values())


def _time(detector: Detector, images: Sequence[np.ndarray]) -> list[float]:
    def call(image: Any) -> None:
        detector(image)

    count = len(images)
    seconds = block(call, itertools.cycle(images), calls=2 * count, warm_up=count)
    return [round(1000 * x, 4) for x in seconds]
