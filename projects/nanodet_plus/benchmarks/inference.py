#!/usr/bin/env python
"""Eager inference of one image: as built, with folded norms, and with channels_last as well.

The whole of it counts: normalisation, network, decoding, NMS.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import common
import cv2
import torch
from detectron2.config import LazyConfig, instantiate

from nanodet_d2.checkpoint import load_weights

BAR = 1.5


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0], output="inference.json")
    parser.add_argument("--config-file", default=str(common.CONFIGS / "nanodet_plus_m_416.py"))
    parser.add_argument("--weights", type=Path, help="random ones if not given")
    parser.add_argument("--image", type=Path, help="a random one if not given")
    parser.set_defaults(repeats=100)
    args = parser.parse_args()
    common.start(args)
    cfg = LazyConfig.load(args.config_file)
    cfg.model.head.num_classes = 80  # as in COCO, without its annotations
    plain = instantiate(cfg.model).eval().to(args.device)
    if args.weights:
        load_weights(plain, str(args.weights), require_all=True)
    models = {
        "plain": plain,
        "folded": copy.deepcopy(plain).fuse(),
        "folded, channels_last": copy.deepcopy(plain).fuse().to(memory_format=torch.channels_last),
    }
    inputs = [{"image": read_image(args.image, cfg.data.input_size)}]

    with torch.inference_mode():
        detections = {name: model(inputs)[0]["instances"] for name, model in models.items()}
        times = common.median_ms(
            {name: lambda model=model: model(inputs) for name, model in models.items()},
            repeats=args.repeats,
            device=args.device,
            warmup=10,
        )
    rows = [
        [name, f"{ms:.1f}", f"{times['plain'] / ms:.2f}", same(detections["plain"], found)]
        for (name, ms), found in zip(times.items(), detections.values())
    ]
    common.show(common.table(rows, ["network", "ms", f"times (bar: {BAR})", "detections"]))
    common.save(args.output, {"ms": times}, args.device)


def read_image(path: Path | None, size: list[int]) -> torch.Tensor:
    """A picture (3, H, W) stretched to (height, width) = ``size``."""
    if path is None:
        return torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    image = cv2.imread(str(path))
    if image is None:
        raise ValueError(f"{path} is no picture that OpenCV reads")
    image = cv2.resize(image, tuple(reversed(size)))
    return torch.from_numpy(image).permute(2, 0, 1).contiguous()


def same(a: Any, b: Any) -> str:
    """How far the detections of two networks differ."""
    if len(a) != len(b) or not torch.equal(a.pred_classes, b.pred_classes):
        return f"{len(a)} and {len(b)}, which differ"
    if len(a) == 0:
        return "none"
    boxes = (a.pred_boxes.tensor - b.pred_boxes.tensor).abs().max()
    scores = (a.scores - b.scores).abs().max()
    return f"the same {len(a)} within {boxes:.0e} px and {scores:.0e} of score"


if __name__ == "__main__":
    main()
