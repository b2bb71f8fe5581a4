"""Score what ``Detector`` runs with detectron2's COCO evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import instantiate
from detectron2.evaluation import inference_on_dataset

from nanodet_d2.config import get_config
from nanodet_d2.engine import DetectionEvaluator
from nanodet_d2.runtime import Detector


def score(
    detector: Detector,
    json_file: str | Path,
    images: str | Path,
    *,
    output_dir: str | Path | None = None,
) -> dict[str, Any]:
    """Evaluate a detector, from the pictures as they are to boxes in their pixels.

    Args, Raises:
        as of :func:`evaluate`.

    Returns:
        detectron2's metrics, ``{"bbox": {"AP": …}}``.
    """
    return evaluate(detector, json_file, images, output_dir=output_dir)[0]


def evaluate(
    detector: Detector,
    json_file: str | Path,
    images: str | Path,
    *,
    output_dir: str | Path | None = None,
) -> tuple[dict[str, Any], DetectionEvaluator]:
    """Metrics of a detector as :func:`score` gives them, and the evaluator that found them.

    Args:
        json_file: annotations in COCO format, with the detector's classes in any order.
        images: the folder of its pictures.
        output_dir: where the report of ``DetectionEvaluator`` is written; nowhere if None.

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
        return [{"instances": found.to_instances()} for found in detector(pictures)]

    evaluator = instantiate(evaluator)
    return inference_on_dataset(model, instantiate(loader), evaluator), evaluator
