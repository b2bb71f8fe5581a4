#!/usr/bin/env python
"""Evaluation of a data set against what it cannot do without: the network and decoding the files.

An evaluation reads, stretches, runs the network, selects detections by NMS and gathers them as a
COCO file has them. What COCO's metrics and the report take comes after it, and is shown beside it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import common
import cv2
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.evaluation import inference_on_dataset
from detectron2.utils import comm
from torch import nn

from nanodet_d2.checkpoint import load_weights
from nanodet_d2.engine import DetectionEvaluator
from nanodet_d2.engine.building import build_model

BAR = 1.5  # times network and decoding
Batches = Iterable[list[dict[str, Any]]]


class Gathering(DetectionEvaluator):
    """An evaluator that ends where all detections are gathered."""

    def evaluate(self, img_ids: Any = None) -> dict[str, Any]:
        comm.gather(self._predictions, dst=0)
        return {}


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0], output="evaluation.json")
    parser.add_argument("--config-file", default=str(common.CONFIGS / "nanodet_plus_m_416.py"))
    parser.add_argument(
        "--weights", type=Path, help="random ones, which find nothing, if not given"
    )
    parser.add_argument("--json", type=Path, required=True, help="a COCO file")
    parser.add_argument("--images", type=Path, required=True, help="the folder of its images")
    parser.add_argument("--batch-sizes", type=int, nargs="*", default=[1, 8])
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 1])
    parser.set_defaults(threads=1, repeats=3)
    args = parser.parse_args()
    cv2.setNumThreads(0)
    common.start(args)

    cfg = LazyConfig.load(args.config_file)
    for split in ("train", "val"):
        cfg.data[split].json, cfg.data[split].images = str(args.json), str(args.images)
    cfg.dataloader.evaluator.output_dir = None
    cfg.train.device = args.device
    model = build_model(cfg, checkpoint_follows=args.weights is not None).eval()
    if args.weights:
        load_weights(model, str(args.weights), require_all=True)
    evaluator = instantiate(cfg.dataloader.evaluator)
    gathering = Gathering(instantiate(cfg.dataloader.test.dataset.names))
    rows, ratios = [], {}
    for batch_size in args.batch_sizes:
        cfg.dataloader.test.batch_size = batch_size
        sides: dict[str, Callable[[], Any]] = {}
        for workers in args.workers:
            cfg.dataloader.test.num_workers = workers
            loader = instantiate(cfg.dataloader.test)
            sides[f"evaluation, {workers} workers"] = over(model, loader, gathering)
        needed = network_and_decoding(model, loader)
        times = common.median_ms(
            {"needed": needed, **sides}, repeats=args.repeats, device=args.device, warmup=1
        )
        for name, ms in times.items():
            ratio = ms / times["needed"]
            ratios[f"{name}, batches of {batch_size}"] = ratio
            rows.append([name, batch_size, f"{ms / len(loader.file_names):.1f}", f"{ratio:.2f}"])
    common.show(common.table(rows, ["", "batch", "ms per image", f"ratio (bar: {BAR:g})"]))
    common.show(f"{evaluation_s(evaluator, model, loader):.1f} s: COCO's metrics, after it")
    common.save(args.output, {"ratios": ratios}, args.device)


def over(model: nn.Module, loader: Batches, evaluator: DetectionEvaluator) -> Callable[[], Any]:
    return lambda: inference_on_dataset(model, loader, evaluator)


def network_and_decoding(model: nn.Module, loader: Any) -> Callable[[], None]:
    """The network on the loader's batches, which are there already, after decoding their files."""
    batches = list(loader)

    @torch.no_grad()
    def run() -> None:
        for batch in batches:
            for sample in batch:
                cv2.imread(sample["file_name"])
            model.network(model.preprocess_image(batch).tensor)

    return run


def evaluation_s(evaluator: DetectionEvaluator, model: nn.Module, loader: Batches) -> float:
    """Seconds of the metrics of all detections."""
    evaluator.reset()
    with torch.no_grad():
        for batch in loader:
            evaluator.process(batch, model(batch))
    begin = time.perf_counter()
    evaluator.evaluate()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
