#!/usr/bin/env python
"""Draw a small detection set, train on it, evaluate, and put predictions beside ground truth."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import time
from pathlib import Path

import cv2
import numpy as np
from detectron2.engine import default_argument_parser
from detectron2.utils.logger import setup_logger
from pycocotools.coco import COCO

from nanodet_d2 import Detector
from nanodet_d2.data.synthetic import make_shapes_dataset
from nanodet_d2.engine import main as run_config
from nanodet_d2.runtime.draw import contact_sheet, draw_boxes, draw_detections
from nanodet_d2.runtime.images import load_image

CONFIG = Path(__file__).parent / "configs" / "demo_shapes.py"
PAIRS = 2  # images in a row of the picture
ENLARGED = 3  # times, so that texts are readable
THRESHOLD = 0.35  # lowest score that is drawn
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
    results = run_config(
        default_argument_parser().parse_args(["--config-file", str(CONFIG), *overrides])
    )
    logger.info("Step 3 of 3: drawing predictions beside ground truth")
    picture = draw_predictions(splits["val"], args.output, args.images)
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


def draw_predictions(val: dict[str, str], output: Path, count: int) -> Path:
    """Write a picture of held-out images, two to a row, each beside its predictions."""
    detector = Detector(output / "model_final.pth", score_thresh=THRESHOLD)
    truth = COCO(val["json"])
    pictures = []
    for entry in truth.loadImgs(sorted(truth.getImgIds())[: count - count % PAIRS]):
        path = Path(val["images"]) / entry["file_name"]
        large = cv2.resize(load_image(path), None, fx=ENLARGED, fy=ENLARGED)
        found = detector(path)
        found = dataclasses.replace(found, xyxy=found.xyxy * ENLARGED)
        pictures.append(draw_truth(large, truth, entry["id"], detector.class_names))
        pictures.append(draw_detections(large, found))
    columns = 2 * PAIRS
    rows = [pictures[i : i + columns] for i in range(0, len(pictures), columns)]
    path = output / "predictions.png"
    cv2.imwrite(str(path), contact_sheet(rows, ["ground truth", "predictions"] * PAIRS))
    return path


def draw_truth(
    large: np.ndarray, truth: COCO, image_id: int, class_names: tuple[str, ...]
) -> np.ndarray:
    """The enlarged image with its annotations, in the detector's colours."""
    annotations = truth.loadAnns(truth.getAnnIds(image_id))
    names = [truth.cats[x["category_id"]]["name"] for x in annotations]
    boxes = np.array([x["bbox"] for x in annotations], np.float32).reshape(-1, 4) * ENLARGED
    boxes[:, 2:] += boxes[:, :2]
    return draw_boxes(large, boxes, names, [class_names.index(name) for name in names])


if __name__ == "__main__":
    main()
