#!/usr/bin/env python
"""Draw a small detection set, train on it, evaluate, and put predictions beside ground truth."""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path

import cv2
import torch
import train_net
from detectron2.config import LazyConfig, instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import default_argument_parser
from detectron2.utils.logger import setup_logger
from nanodet_d2.visualization import contact_sheet, draw_annotations, draw_detections

from nanodet_d2.checkpoint import load_weights
from nanodet_d2.config import apply_overrides
from nanodet_d2.data import split_name
from nanodet_d2.data.images import read_image
from nanodet_d2.data.synthetic import make_shapes_dataset

CONFIG = Path(__file__).parent / "configs" / "demo_shapes.py"
PAIRS = 2  # images in a row of the picture
logger = logging.getLogger("nanodet_d2.demo")


def main() -> None:
    args = parse_args()
    start = time.time()
    # As train_net.py does, or each line would come twice.
    setup_logger(str(args.output), distributed_rank=0, name="nanodet_d2")
    logger.info("Step 1 of 3: drawing the images")
    splits = make_shapes_dataset(args.output / "data")
    overrides = [
        f"data.{split}.{key}={path}" for split, x in splits.items() for key, path in x.items()
    ]
    overrides += [f"train.output_dir={args.output}", f"train.seed={args.seed}", *args.opts]

    logger.info("Step 2 of 3: training and evaluation")
    results = train_net.main(
        default_argument_parser().parse_args(["--config-file", str(CONFIG), *overrides])
    )
    logger.info("Step 3 of 3: drawing predictions beside ground truth")
    picture = draw_predictions(overrides, args.output, args.images)
    logger.info(
        "Done in %.0f s: AP %.1f, AP50 %.1f on the held-out images; look at %s",
        time.time() - start,
        results["bbox"]["AP"],
        results["bbox"]["AP50"],
        picture,
    )


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("output/demo"), help="folder to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=6, help="images in the picture")
    parser.add_argument("opts", nargs="*", metavar="KEY=VALUE", help="config overrides")
    return parser.parse_args()


def draw_predictions(overrides: list[str], output: Path, count: int) -> Path:
    """Write a picture of held-out images, two to a row, each beside its predictions."""
    cfg = apply_overrides(LazyConfig.load(str(CONFIG)), overrides)
    model = instantiate(cfg.model).to(cfg.train.device).eval()
    load_weights(model, str(output / "model_final.pth"), require_all=True)
    mapper = instantiate(cfg.dataloader.test.mapper)
    name = split_name(cfg.data, "val")
    metadata = MetadataCatalog.get(name)
    pictures = []
    for record in DatasetCatalog.get(name)[: count - count % PAIRS]:
        image = read_image(dict(record), "BGR")
        with torch.no_grad():
            found = model([mapper(record)])[0]["instances"]
        pictures.append(draw_annotations(image, record, metadata))
        pictures.append(draw_detections(image, found, metadata))
    columns = 2 * PAIRS
    rows = [pictures[i : i + columns] for i in range(0, len(pictures), columns)]
    path = output / "predictions.png"
    cv2.imwrite(str(path), contact_sheet(rows, ["ground truth", "predictions"] * PAIRS))
    return path


if __name__ == "__main__":
    main()
