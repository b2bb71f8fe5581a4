"""Score what ``Detector`` runs with detectron2's COCO evaluation.

``python -m nanodet_d2.export.evaluate MODEL [--weights W] --json annotations.json --images FOLDER``
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import instantiate
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.utils.logger import setup_logger

from nanodet_d2.config import get_config
from nanodet_d2.data.images import MAX_PIXELS
from nanodet_d2.predictor import MODEL_HELP, Detector

logger = logging.getLogger("nanodet_d2.export")


def evaluate(
    detector: Detector,
    json_file: str | Path,
    images: str | Path,
    *,
    output_dir: str | Path | None = None,
) -> dict[str, Any]:
    """Evaluate a detector, from the pictures as they are to boxes in their pixels.

    Args:
        json_file: annotations in COCO format, with the detector's classes in any order.
        images: the folder of its pictures.
        output_dir: where the report of ``DetectionEvaluator`` is written; nowhere if None.

    Returns:
        detectron2's metrics, ``{"bbox": {"AP": …}}``.

    Raises:
        ValueError: if the classes are others, or files are missing or damaged.
    """
    cfg = get_config("common/data/coco.py")
    cfg.data.classes = list(detector.class_names)
    cfg.data.val.json, cfg.data.val.images = str(json_file), str(images)
    loader, evaluator = cfg.dataloader.test, cfg.dataloader.evaluator
    loader.mapper.augmentations = []
    loader.mapper.max_pixels = detector.max_pixels
    loader.num_workers = 0  # a forked one can crash beside the threads of the runtimes
    evaluator.dataset_name = loader.dataset.names
    evaluator.output_dir = str(output_dir) if output_dir else None

    def model(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        pictures = [np.ascontiguousarray(x["image"].permute(1, 2, 0).numpy()) for x in batch]
        return [{"instances": found} for found in detector(pictures)]

    return inference_on_dataset(model, instantiate(loader), instantiate(evaluator))


def main(argv: list[str] | None = None) -> int:
    """Returns 1, after one line that says why, if it cannot be done."""
    args = parse_args(argv)
    setup_logger(name="nanodet_d2")
    setup_logger(name="detectron2")
    try:
        detector = Detector(
            args.model,
            args.weights,
            num_threads=args.threads,
            metadata=args.metadata,
            max_pixels=args.max_pixels,
        )
        results = evaluate(detector, args.json, args.images, output_dir=args.output)
    except (ValueError, FileNotFoundError) as error:
        logger.error("%s", error)
        return 1
    print_csv_format(results)
    if args.output:
        path = args.output / "evaluation.json"
        path.write_text(json.dumps(results, indent=1))
        logger.info("Metrics written to %s", path)
    return 0


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m nanodet_d2.export.evaluate")
    add = parser.add_argument
    add("model", type=Path, help=MODEL_HELP)
    add("--weights", help="the config's checkpoint")
    add("--json", type=Path, required=True, help="annotations in COCO format")
    add("--images", type=Path, required=True, help="folder of the pictures")
    add("--output", type=Path, help="folder for the metrics and the report")
    add("--metadata", type=Path, help="json in place of the file's own metadata")
    add("--threads", type=int, help="of the runtime")
    add("--max-pixels", type=int, default=MAX_PIXELS, help="of a picture; %(default)s")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
