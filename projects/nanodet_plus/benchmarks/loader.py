#!/usr/bin/env python
"""Training pipeline on one core: this project's mapper against detectron2's stock mapper.

Reading, augmentation and tensors of every image, in one process. The reference's arithmetic
(colours in float32 through HSV, normalisation on the host) runs beside them.
"""

from __future__ import annotations

import os
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

from nanodet_d2.data import DetectionMapper, ImageCache, RandomWarp, split_name

BAR = 200  # images per second
MEAN = np.array([103.53, 116.28, 123.675], np.float32)
STD = np.array([57.375, 57.12, 58.395], np.float32)


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0], output="loader.json")
    parser.add_argument("--json", type=Path, required=True, help="a COCO file")
    parser.add_argument("--images", type=Path, required=True, help="the folder of its images")
    parser.add_argument("--size", type=int, default=416)
    parser.set_defaults(threads=1, repeats=5, device="cpu")
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
    cv2.setNumThreads(0)
    common.start(args)

    cfg = LazyConfig.load(str(common.CONFIGS / "nanodet_plus_m_416.py"))
    cfg.data.input_size = [args.size, args.size]
    for split in ("train", "val"):
        cfg.data[split].json, cfg.data[split].images = str(args.json), str(args.images)
    records = DatasetCatalog.get(split_name(cfg.data, "train"))
    ours = cfg.dataloader.train.mapper
    sides = {
        "this project": over(instantiate(ours), records),
        "this project, images in a cache": over(cached(instantiate(ours), records), records),
        "reference's arithmetic": over(ReferencePipeline(ours.augmentations[0]), records),
        "detectron2's mapper, large-scale jitter": over(large_scale_jitter(args.size), records),
        "reading alone": over(lambda x: cv2.imread(x["file_name"]), records),
    }
    times = common.median_ms(sides, repeats=args.repeats, device=args.device, warmup=1)
    rates = {name: 1e3 * len(records) / ms for name, ms in times.items()}
    best = rates["this project"]
    rows = [[name, f"{rate:.0f}", f"{best / rate:.1f}"] for name, rate in rates.items()]
    common.show(f"{len(records)} images, {args.size} px, one core")
    common.show(common.table(rows, ["pipeline", f"images/s (bar: {BAR})", "ours is times"]))
    common.save(args.output, {"images_per_second": rates}, args.device)


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
        pixels = warp.apply_image(image).astype(np.float32) / 255
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
