#!/usr/bin/env python
"""The whole way in four minutes: draw a small data set, train on it, evaluate, export, predict.

A training by time gets what the other steps leave of the minutes, so that they hold on any machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import time
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from detectron2.engine import default_argument_parser
from detectron2.utils.logger import setup_logger
from pycocotools.coco import COCO

from nanodet_d2.data.synthetic import make_shapes_dataset
from nanodet_d2.engine import main as run_config
from nanodet_d2.export.job import Job
from nanodet_d2.export.loading import load_model
from nanodet_d2.export.writer import Written, export
from nanodet_d2.runtime import Detector
from nanodet_d2.runtime.draw import contact_sheet, draw_boxes, draw_detections
from nanodet_d2.runtime.images import load_image

CONFIG = Path(__file__).parent / "configs" / "demo_shapes.py"
START_S = 10.0  # seconds to start Python and end it, that nobody measures
EXPORT_S = 18.0  # seconds kept for the export, its check and the pictures
PAIRS = 2  # images in a row of the picture
ENLARGED = 3  # times, so that texts are readable
THRESHOLD = 0.35  # lowest score that is drawn
LATENCY_ROUNDS = 50
logger = logging.getLogger("nanodet_d2.demo")

Split = dict[str, str]  # path of the annotations ("json") and the folder ("images")


class Predicted(NamedTuple):
    """What the exported file did."""

    picture: Path
    milliseconds: float  # median from image to boxes


def main() -> None:
    args = parse_args()
    begin = time.monotonic()
    # As train_net.py does, or each line would come twice.
    setup_logger(str(args.output), distributed_rank=0, name="nanodet_d2")
    logger.info("Step 1 of 4: drawing the images")
    splits = make_shapes_dataset(args.output / "data")
    seconds = 60 * args.minutes - START_S - EXPORT_S - (time.monotonic() - begin)
    logger.info("Step 2 of 4: training and evaluation, %.0f s", seconds)
    results = train(splits, seconds, args)
    logger.info("Step 3 of 4: export to ONNX, compared with PyTorch")
    loaded = load_model(str(args.output / "model_final.pth"))
    (written,) = export(loaded, Job(formats=("onnx",), output=args.output / "export"))
    logger.info("Step 4 of 4: predictions of the exported file beside ground truth")
    predicted = predict(written.path, splits["val"], args.output, args.images)
    show(results["bbox"], args.output / "model_final.pth", written, predicted)
    logger.info("Done in %.0f s", time.monotonic() - begin)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--output", type=Path, default=Path("output/demo"), help="folder to write")
    add("--minutes", type=float, default=4.0, help="for all of it (default: %(default)g)")
    add("--seed", type=int, default=0)
    add("--images", type=int, default=6, help="images in the picture")
    add("opts", nargs="*", metavar="KEY=VALUE", help="config overrides")
    return parser.parse_args()


def train(
    splits: dict[str, Split], seconds: float, args: argparse.Namespace
) -> dict[str, dict[str, float]]:
    """As ``train_net.py`` would with the demo's config; the evaluation's results."""
    overrides = [
        f"data.{split}.{key}={path}" for split, x in splits.items() for key, path in x.items()
    ]
    overrides += [
        f"train.minutes={max(seconds, 1.0) / 60}",
        f"train.output_dir={args.output}",
        f"train.seed={args.seed}",
        *args.opts,
    ]
    return run_config(
        default_argument_parser().parse_args(["--config-file", str(CONFIG), *overrides])
    )


def predict(model: Path, val: Split, output: Path, count: int) -> Predicted:
    """Draw held-out images, two to a row, each beside its predictions, and take the time."""
    detector = Detector(model, score_thresh=THRESHOLD)
    truth = COCO(val["json"])
    pictures, paths = [], []
    for entry in truth.loadImgs(sorted(truth.getImgIds())[: count - count % PAIRS]):
        paths.append(Path(val["images"]) / entry["file_name"])
        image = load_image(paths[-1])
        large = cv2.resize(image, None, fx=ENLARGED, fy=ENLARGED)
        found = detector(image)
        found = dataclasses.replace(found, xyxy=found.xyxy * ENLARGED)
        pictures.append(draw_truth(large, truth, entry["id"], detector.class_names))
        pictures.append(draw_detections(large, found))
    columns = 2 * PAIRS
    rows = [pictures[i : i + columns] for i in range(0, len(pictures), columns)]
    path = output / "predictions.png"
    cv2.imwrite(str(path), contact_sheet(rows, ["ground truth", "predictions"] * PAIRS))
    return Predicted(path, median_latency(detector, load_image(paths[0])))


def median_latency(detector: Detector, image: np.ndarray) -> float:
    """Milliseconds from image to boxes."""
    times = []
    for _ in range(LATENCY_ROUNDS):
        begin = time.perf_counter()
        detector(image)
        times.append(time.perf_counter() - begin)
    return 1000 * float(np.median(times))


def draw_truth(
    large: np.ndarray, truth: COCO, image_id: int, class_names: tuple[str, ...]
) -> np.ndarray:
    """The enlarged image with its annotations, in the detector's colours."""
    annotations = truth.loadAnns(truth.getAnnIds(image_id))
    names = [truth.cats[x["category_id"]]["name"] for x in annotations]
    boxes = np.array([x["bbox"] for x in annotations], np.float32).reshape(-1, 4) * ENLARGED
    boxes[:, 2:] += boxes[:, :2]
    return draw_boxes(large, boxes, names, [class_names.index(name) for name in names])


def show(
    metrics: dict[str, float], checkpoint: Path, written: Written, predicted: Predicted
) -> None:
    """The last lines: what became of it, where it lies, and what to do next."""
    megabytes = {path: path.stat().st_size / 1e6 for path in (checkpoint, written.path)}
    logger.info("AP %.1f, AP50 %.1f on the held-out images", metrics["AP"], metrics["AP50"])
    logger.info(
        "checkpoint: %s, %.1f MB, with all that resumes it", checkpoint, megabytes[checkpoint]
    )
    logger.info(
        "exported: %s, %.1f MB, %.1f ms from image to boxes, no torch needed",
        written.path,
        megabytes[written.path],
        predicted.milliseconds,
    )
    logger.info("look at: %s", predicted.picture)
    logger.info("try: nanodet-d2 predict %s PICTURE", written.path)


if __name__ == "__main__":
    main()
