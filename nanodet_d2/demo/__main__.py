"""The command; see the package."""

from __future__ import annotations

import argparse
import collections
import itertools
import json
import logging
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.structures import Instances
from detectron2.utils.logger import setup_logger
from tqdm import tqdm

from nanodet_d2 import demo
from nanodet_d2.predictor import Detector
from nanodet_d2.visualization import draw_boxes

from .sources import Frame, Source, open_inputs

RECENT = 200  # calls that the rate is of
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


class TimedDetector:
    """A detector that remembers how long its last calls took."""

    def __init__(self, detector: Detector):
        self.detector = detector
        self.seconds: collections.deque[float] = collections.deque(maxlen=RECENT)

    def __call__(self, image: np.ndarray) -> Instances:
        begin = time.perf_counter()
        found = self.detector(image)
        self.seconds.append(time.perf_counter() - begin)
        return found

    def rate(self) -> str:
        """By the median call, which is none of those that warm up."""
        rate = 1 / statistics.median(self.seconds) if self.seconds else 0.0
        return f"{rate:.1f} frames/s by {self.detector.backend} alone"


def process(
    source: Source,
    detector: TimedDetector,
    results: Results,
    bar: tqdm,
    *,
    max_frames: int | None = None,
) -> None:
    """Detect in the frames of a source, draw and write; the source is closed whatever happens."""
    try:
        for frame in itertools.islice(source, max_frames):
            found = detector(frame.image)
            results.add(frame, found)
            source.write(frame, draw_boxes(frame.image, found, detector.detector.class_names))
            bar.set_postfix_str(detector.rate(), refresh=False)
            bar.update()
    finally:
        source.close()


def process_all(
    sources: Sequence[Source], detector: TimedDetector, results: Results, max_frames: int | None
) -> list[str]:
    """Use one source after the other; one that fails does not cost the next.

    Returns:
        What was wrong.
    """
    totals = [x.total if max_frames is None or x.total is None else min(x.total, max_frames)
              for x in sources]  # fmt: skip
    total = None if None in totals else sum(totals)
    problems = []
    with tqdm(total=total, unit="frame") as bar:
        for source in sources:
            try:
                process(source, detector, results, bar, max_frames=max_frames)
            except ValueError as error:
                problems.append(str(error))
            problems += source.problems
    return problems


def main(argv: list[str] | None = None) -> int:
    """Returns 1, after a line for each, if something was refused, broke off or was left out."""
    args = parse_args(argv)
    setup_logger(name="nanodet_d2")
    try:
        sources = open_inputs(args.input, args.output)
        detector = TimedDetector(
            Detector(
                args.model,
                args.weights,
                num_threads=args.threads,
                score_thresh=args.threshold,
                metadata=args.metadata,
            )
        )
    except (ValueError, FileNotFoundError) as error:
        logger.error("%s", error)
        return 1
    results, problems = Results(detector.detector.class_names), []
    try:
        problems = process_all(sources, detector, results, args.max_frames)
    except KeyboardInterrupt:
        logger.warning("Stopped by Ctrl+C")
    finally:
        results.save(args.output / "detections.json")
        logger.info(
            "%d detections in %d pictures, %s; results are in %s",
            len(results.annotations),
            len(results.images),
            detector.rate(),
            args.output,
        )
    for problem in problems:
        logger.error("%s", problem)
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
