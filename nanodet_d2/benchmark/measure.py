"""Latencies and AP."""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Callable

import cv2
import numpy as np
from tqdm import tqdm

from nanodet_d2.export.score import score
from nanodet_d2.runtime import Detector
from nanodet_d2.runtime.backends.torchscript import torch_threads

from .models import Model

# Seconds before a block of calls: the threads of the runtime before, which wait actively for a
# while, fall asleep. The first call of a block is not counted: it warms the caches.
PAUSE = 0.05
BLOCK = 6
logger = logging.getLogger(__name__)


def measure_all(
    models: Sequence[Model], images: Sequence[np.ndarray], threads: Sequence[int], rounds: int
) -> None:
    """Add to each model's facts its ``latency`` by number of threads."""
    with tqdm(total=len(threads) * rounds * len(models), unit="block", desc="latency") as bar:
        for count in threads:
            detectors = {model.name: model.open(count) for model in models}
            with all_threads(count):
                found = measure(detectors, images, rounds=rounds, bar=bar)
            for model in models:
                model.facts.setdefault("latency", {})[str(count)] = found[model.name]


@contextlib.contextmanager
def all_threads(count: int) -> Iterator[None]:
    """In here torch and OpenCV have so many threads."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(count)
    try:
        with torch_threads(count):
            yield
    finally:
        cv2.setNumThreads(before)


def score_all(models: Sequence[Model], json_file: Path, images: Path, threads: int) -> None:
    """Add to each model's facts its ``AP`` on a data set in COCO format, if it has its classes."""
    logging.getLogger("detectron2").setLevel(logging.WARNING)
    for model in tqdm(models, unit="model", desc="AP"):
        try:
            model.facts["AP"] = average_precision(model.open(threads), json_file, images)
        except ValueError as error:
            logger.error("No AP of %s: %s", model.name, error)


def average_precision(detector: Detector, json_file: Path, images: Path) -> float:
    """AP on a data set in COCO format, in percent.

    Raises:
        ValueError: as ``score``.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        metrics = score(detector, json_file, images)
    return float(np.nan_to_num(metrics["bbox"]["AP"]))  # NaN if nothing was found at all


def measure(
    detectors: Mapping[str, Detector], images: Sequence[np.ndarray], *, rounds: int, bar: Any
) -> dict[str, dict[str, Any]]:
    """Latencies of each detector, ``network`` alone and ``total``, for images in turn, which are
    the same ones for all."""
    prepared = {
        name: itertools.cycle([detector.prepare([image]) for image in images])
        for name, detector in detectors.items()
    }
    given = {name: itertools.cycle(images) for name in detectors}
    network: dict[str, list[float]] = {name: [] for name in detectors}
    total: dict[str, list[float]] = {name: [] for name in detectors}
    order = random.Random(0)
    for _ in range(rounds):
        for name in order.sample(list(detectors), len(detectors)):
            detector = detectors[name]
            network[name] += block(detector.run, prepared[name])
            total[name] += block(detector, given[name])
            bar.update()
    return {
        name: {
            "network": _summary(network[name]),
            "total": _summary(total[name]),
            "images_per_second": len(total[name]) / sum(total[name]),
        }
        for name in detectors
    }


def block(
    call: Callable[[Any], Any], given: Iterator[Any], *, calls: int = BLOCK, warm_up: int = 1
) -> list[float]:
    """Seconds of calls in a row, each with the next of what is given.

    Args:
        calls: all of them.
        warm_up: how many of them are not counted.
    """
    seconds = []
    time.sleep(PAUSE)
    for _ in range(calls):
        x = next(given)
        begin = time.perf_counter()
        call(x)
        seconds.append(time.perf_counter() - begin)
    return seconds[warm_up:]


def _summary(seconds: Sequence[float]) -> dict[str, float]:
    milliseconds = np.array(seconds) * 1e3
    return {"median_ms": float(np.median(milliseconds)),
            "p90_ms": float(np.percentile(milliseconds, 90))}  # fmt: skip
