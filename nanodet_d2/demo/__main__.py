"""The command; see the package."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

from detectron2.structures import Instances
from detectron2.utils.logger import setup_logger
from tqdm import tqdm

from nanodet_d2 import demo
from nanodet_d2.predictor import Detector
from nanodet_d2.visualization import draw_boxes

from .sources import Frame, Source, open_inputs

logger = logging.getLogger("nanodet_d2.demo")


class Results:
    """Detections as a COCO data set; its annotations have scores, so they serve as results, too.

    Category ids are the model's class indices plus one. Images of a video have ``frame``.
    """

    def __init__(self, class_names: list[str]):
        self.categories = [{"id": i + 1, "name": name} for i, name in enumerate(class_names)]
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []

    def add(self, frame: Frame, found: Instances) -> None:
        height, width = frame.image.shape[:2]
        image = {"id": len(self.images) + 1, "file_name": frame.name}
        image.update({} if frame.number is None else {"frame": frame.number})
        self.images.append({**image, "width": width, "height": height})
        boxes = found.pred_boxes.tensor.tolist()
        rows = zip(boxes, found.scores.tolist(), found.pred_classes.tolist())
        for (x0, y0, x1, y1), score, label in rows:
            box = [round(x, 2) for x in (x0, y0, x1 - x0, y1 - y0)]
            self.annotations.append(
                {"id": len(self.annotations) + 1, "image_id": image["id"],
                 "category_id": label + 1, "bbox": box, "area": round(box[2] * box[3], 2),
                 "iscrowd": 0, "score": round(score, 5)}
            )  # fmt: skip

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(vars(self)))
        os.replace(part, path)


def process(
    source: Source, detector: Detector, results: Results, *, max_frames: int | None
) -> float:
    """Detect in all frames of a source, draw and write; returns the detector's seconds."""
    seconds = 0.0
    total = min(x for x in (source.total, max_frames, sys.maxsize) if x is not None)
    bar = tqdm(total=None if total == sys.maxsize else total, unit="frame", leave=False)
    try:
        for done, frame in enumerate(source, 1):
            begin = time.perf_counter()
            found = detector(frame.image)
            seconds += time.perf_counter() - begin
            results.add(frame, found)
            source.write(frame, draw_boxes(frame.image, found, detector.class_names))
            bar.update()
            bar.set_postfix_str(f"detector alone {done / seconds:.1f} frame/s")
            if done == max_frames:
                break
    finally:
        bar.close()
        source.close()
    return seconds


def main(argv: list[str] | None = None) -> int:
    """Returns 1, after a line for each, if something was refused, broke off or was left out."""
    args = parse_args(argv)
    setup_logger(name="nanodet_d2")
    try:
        sources = open_inputs(args.input, args.output)
        detector = Detector(
            args.model,
            args.weights,
            num_threads=args.threads,
            score_thresh=args.threshold,
            metadata=args.metadata,
        )
    except (ValueError, FileNotFoundError) as error:
        logger.error("%s", error)
        return 1
    results, seconds, problems = Results(detector.class_names), 0.0, []
    try:
        for source in sources:
            try:
                seconds += process(source, detector, results, max_frames=args.max_frames)
            except ValueError as error:
                problems.append(str(error))
            problems += source.problems
    except KeyboardInterrupt:
        logger.warning("Stopped by Ctrl+C")
    finally:
        results.save(args.output / "detections.json")
        for problem in problems:
            logger.error("%s", problem)
        logger.info(
            "%d detections in %d pictures, %.1f frames per second by %s; results are in %s",
            len(results.annotations),
            len(results.images),
            len(results.images) / seconds if seconds else 0.0,
            detector.backend,
            args.output,
        )
    return int(bool(problems))


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m nanodet_d2.demo", description=demo.__doc__)
    add = parser.add_argument
    add("model", type=Path, help="an exported file, or a config")
    add("--weights", help="the config's checkpoint, path or URL")
    add("--metadata", type=Path, help="json in place of the file's own metadata")
    add("--input", nargs="+", required=True, help="pictures, folders, videos, a camera's index")
    add("--output", type=Path, default=Path("output/detections"), help="folder to write")
    add("--threshold", type=float, default=0.35, help="lowest score of a detection")
    add("--threads", type=int, help="of the runtime")
    add("--max-frames", type=int, help="of each input, then stop")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
