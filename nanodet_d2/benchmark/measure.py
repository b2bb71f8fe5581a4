"""Latencies and AP."""

from __future__ import annotations

import contextlib
import functools
import io
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
from nanodet_d2.predictor import Detector
from nanodet_d2.runtime.backends.torchscript import torch_threads

from .models import Model

# Seconds before a block of calls: the threads of the runtime before, which wait actively for a
# while, fall asleep. The first call of a block is not counted: it warms the caches.
PAUSE = 0.05
BLOCK = 6
logger = logging.getLogger(__name__)


def measure_all(
    models: Sequence[Model], image: np.ndarray, threads: Sequence[int], rounds: int
) -> None:
    """Add to each model's facts its ``latency`` by number of threads."""
    with tqdm(total=len(threads) * rounds * len(models), unit="block", desc="latency") as bar:
        for count in threads:
            detectors = {model.name: model.open(count) for model in models}
            with torch_threads(count), _opencv_threads(count):
                found = measure(detectors, image, rounds=rounds, bar=bar)
            for model in models:
                model.facts.setdefault("latency", {})[str(count)] = found[model.name]


@contextlib.contextmanager
def _opencv_threads(count: int) -> Iterator[None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(count)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def score_all(models: Sequence[Model], json_file: Path, images: Path, threads: int) -> None:
    """Add to each model's facts its ``AP`` on a data set in COCO format, if it has its classes."""
    logging.getLogger("detectron2").setLevel(logging.WARNING)
    for model in tqdm(models, unit="model", desc="AP"):
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
                metrics = score(model.open(threads), json_file, images)
        except ValueError as error:
            logger.error("No AP of %s: %s", model.name, error)
            continue
        # detectron2 gives NaN if nothing was found at all
        model.facts["AP"] = float(np.nan_to_num(metrics["bbox"]["AP"]))


def measure(
    detectors: Mapping[str, Detector], image: np.ndarray, *, rounds: int, bar: tqdm
) -> dict[str, dict[str, Any]]:
    """Latencies of each detector for one image, ``network`` alone and ``total``."""
    prepared = {name: detector.prepare([image]) for name, detector in detectors.items()}
    network: dict[str, list[float]] = {name: [] for name in detectors}
    total: dict[str, list[float]] = {name: [] for name in detectors}
    order = random.Random(0)
    for _ in range(rounds):
        for name in order.sample(list(detectors), len(detectors)):
            detector = detectors[name]
            network[name] += _block(functools.partial(detector.run, prepared[name]))
            total[name] += _block(functools.partial(detector, image))
            bar.update()
    return {
        name: {
            "network": _summary(network[name]),
            "total": _summary(total[name]),
            "images_per_second": len(total[name]) / sum(total[name]),
        }
        for name in detectors
    }


def _block(call: Callable[[], Any]) -> list[float]:
    seconds = []
    time.sleep(PAUSE)
    for _ in range(BLOCK):
        begin = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
    return seconds[1:]


def _summary(seconds: Sequence[float]) -> dict[str, float]:
    milliseconds = np.array(seconds) * 1e3
    return {"median_ms": float(np.median(milliseconds)),
            "p90_ms": float(np.percentile(milliseconds, 90))}  # fmt: skip
