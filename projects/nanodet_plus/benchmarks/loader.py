#!/usr/bin/env python
"""Training pipeline: this project's mapper against the reference's and detectron2's.

First on one core, in one process: reading, augmentation and tensors of every image, the sides in
turns. The reference's arithmetic is a perspective warp, colours in float32 through HSV, and
normalisation on the host. Then the loader with workers on all cores.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import cv2
import numpy as np
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.data import DatasetCatalog, DatasetMapper
from detectron2.data import transforms as T

from nanodet_d2.data import (
    DetectionMapper,
    ImageCache,
    RandomWarp,
    build_train_loader,
    split_name,
)

BAR = 3.0  # times the reference's arithmetic
BATCH, STARTING = 32, 2  # images of a loader's batch; batches that do not count
MEAN = np.array([103.53, 116.28, 123.675], np.float32)
STD = np.array([57.375, 57.12, 58.395], np.float32)


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0], output="loader.json")
    parser.add_argument("--json", type=Path, required=True, help="a COCO file")
    parser.add_argument("--images", type=Path, required=True, help="the folder of its images")
    parser.add_argument("--size", type=int, default=416)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--batches", type=int, default=20, help=f"of {BATCH}, by the workers")
    parser.set_defaults(threads=1, repeats=5, device="cpu")
    args = parser.parse_args()
    cv2.setNumThreads(0)
    common.start(args)

    cfg = LazyConfig.load(str(common.CONFIGS / "nanodet_plus_m_416.py"))
    cfg.data.input_size = [args.size, args.size]
    for split in ("train", "val"):
        cfg.data[split].json, cfg.data[split].images = str(args.json), str(args.images)
    records = DatasetCatalog.get(split_name(cfg.data, "train"))
    mapper = cfg.dataloader.train.mapper
    rates = on_one_core(mapper, records, args)
    growth = {n: with_workers(instantiate(mapper), records, n, args.batches) for n in args.workers}
    if growth:
        rows = [
            [n, f"{rate:.0f}", f"{rate / growth[args.workers[0]]:.2f}"]
            for n, rate in growth.items()
        ]
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        common.show(f"\nthe loader's batches of {BATCH}, {cores} cores")
        common.show(common.table(rows, ["workers", "images/s", "times the first row"]))
    common.save(args.output, {"images_per_second": rates, "by_workers": growth}, args.device)


def on_one_core(mapper: Any, records: list[dict[str, Any]], args: Any) -> dict[str, float]:
    """Images per second of each pipeline, in this process."""
    sides = {
        "this project": over(instantiate(mapper), records),
        "this project, images in a cache": over(cached(instantiate(mapper), records), records),
        "reference's arithmetic": over(ReferencePipeline(mapper.augmentations[0]), records),
        "detectron2's mapper, large-scale jitter": over(large_scale_jitter(args.size), records),
        "reading alone": over(lambda x: cv2.imread(x["file_name"]), records),
    }
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_setaffinity") else set()
    if cores:
        os.sched_setaffinity(0, [min(cores)])
    times = common.median_ms(sides, repeats=args.repeats, device=args.device, warmup=1)
    if cores:
        os.sched_setaffinity(0, cores)
    rates = {name: 1e3 * len(records) / ms for name, ms in times.items()}
    best = rates["this project"]
    rows = [[name, f"{rate:.0f}", f"{best / rate:.2f}"] for name, rate in rates.items()]
    common.show(f"{len(records)} images, {args.size} px, one core")
    common.show(common.table(rows, ["pipeline", "images/s", "ours is times"]))
    times_reference = best / rates["reference's arithmetic"]
    met = "met" if times_reference >= BAR else "not met"
    common.show(f"{times_reference:.2f} times the reference's arithmetic (bar: {BAR:g}): {met}")
    return rates


def with_workers(
    mapper: DetectionMapper, records: list[dict[str, Any]], workers: int, batches: int
) -> float:
    """Images per second that arrive in the training's process, which does nothing else."""
    loader = build_train_loader(
        records, mapper=mapper, total_batch_size=BATCH, num_workers=workers, seed=0
    )
    arriving = iter(loader)
    for _ in itertools.islice(arriving, STARTING + 2 * workers):  # those made ahead as well
        pass
    begin = time.perf_counter()
    count = sum(len(batch) for batch in itertools.islice(arriving, batches))
    return count / (time.perf_counter() - begin)


def over(mapper: Callable[[dict[str, Any]], Any], records: list[dict[str, Any]]) -> Callable:
    def run() -> None:
        for record in records:
            mapper(dict(record))

    return run


def cached(mapper: DetectionMapper, records: list[dict[str, Any]]) -> DetectionMapper:
    """The mapper from its second epoch on: the first one of the measurement does not count."""
    cache = ImageCache(storage="ram", gigabytes=8)
    cache.prepare(records, image_format=mapper.image_format)
    return mapper.with_cache(cache)


class ReferencePipeline:
    """Warp, then colours and normalisation in float32, as the specification words it."""

    def __init__(self, warp: Any):
        self.warp: RandomWarp = instantiate(warp)

    def __call__(self, record: dict[str, Any]) -> torch.Tensor:
        image = cv2.imread(record["file_name"])
        warp = self.warp.get_transform(image)
        boxes = np.array([x["bbox"] for x in record["annotations"]]).reshape(-1, 4)
        warp.apply_box(boxes)
        pixels = (
            cv2.warpPerspective(image, warp.matrix, (warp.width, warp.height)).astype(np.float32)
            / 255
        )
        if np.random.randint(2):
            pixels += np.float32(np.random.uniform(-0.2, 0.2))
        if np.random.randint(2):
            pixels *= np.float32(np.random.uniform(0.6, 1.4))
        if np.random.randint(2):
            hsv = cv2.cvtColor(pixels, cv2.COLOR_BGR2HSV)
            hsv[..., 1] *= np.float32(np.random.uniform(0.5, 1.2))
            pixels = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
        pixels = (pixels - MEAN / 255) / (STD / 255)
        return torch.from_numpy(pixels.transpose(2, 0, 1))


def large_scale_jitter(size: int) -> DatasetMapper:
    """detectron2's mapper with the augmentation of its "new baselines"."""
    return DatasetMapper(
        is_train=True,
        augmentations=[
            T.ResizeScale(min_scale=0.1, max_scale=2.0, target_height=size, target_width=size),
            T.FixedSizeCrop(crop_size=(size, size)),
            T.RandomFlip(horizontal=True),
        ],
        image_format="BGR",
    )


if __name__ == "__main__":
    main()
