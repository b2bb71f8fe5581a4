"""The command; see the package."""

from __future__ import annotations

import argparse
import collections
import contextlib
import itertools
import logging
import signal
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.structures import Instances
from detectron2.utils.logger import setup_logger
from tqdm import tqdm

from nanodet_d2 import demo
from nanodet_d2.data.images import MAX_PIXELS, check_max_pixels
from nanodet_d2.predictor import MODEL_HELP, Detector
from nanodet_d2.visualization import draw_boxes

from .results import Results
from .sources import Frame, Source, open_inputs

RECENT = 200  # calls that the rate is of
MAX_FAILURES = 20  # frames in a row, after which a source is given up
MAX_NAMED = 5  # failed frames of a source that are told one by one
logger = logging.getLogger("nanodet_d2.demo")


@contextlib.contextmanager
def set_by_sigterm() -> Iterator[threading.Event]:
    """An event that SIGTERM sets; another SIGTERM has the effect it had before."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event  # others get no signals
        return

    def handler(*_: Any) -> None:
        event.set()
        signal.signal(signal.SIGTERM, before)

    before = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL
    signal.signal(signal.SIGTERM, handler)
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, before)


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


class Run:
    """Detects in the frames of sources, draws and writes, one source after the other.

    What fails does not cost the rest: a picture or frame, or what is left of a source.

    Args:
        stop: when it is set, the frame that is being worked on is the last one.
        max_frames: of each source; all if None.

    Attributes:
        problems: what was wrong, in words.
    """

    def __init__(
        self,
        detector: TimedDetector,
        results: Results,
        *,
        stop: threading.Event,
        max_frames: int | None = None,
    ):
        self.detector = detector
        self.results = results
        self.stop = stop
        self.max_frames = max_frames
        self.problems: list[str] = []

    def use(self, sources: Sequence[Source]) -> None:
        """Use all sources, with a progress bar."""
        limit = self.max_frames
        totals = [x.total if limit is None or x.total is None else min(x.total, limit)
                  for x in sources]  # fmt: skip
        with tqdm(total=None if None in totals else sum(totals), unit="frame") as bar:
            for source in sources:
                if not self.stop.is_set():
                    self._use_one(source, bar)

    def _use_one(self, source: Source, bar: tqdm) -> None:
        failed, in_a_row = 0, 0
        try:
            for frame in itertools.islice(source, self.max_frames):
                problem = self._use_frame(source, frame)
                in_a_row = in_a_row + 1 if problem else 0
                failed += bool(problem)
                if problem and failed <= MAX_NAMED:
                    self.problems.append(problem)
                bar.set_postfix_str(self.detector.rate(), refresh=False)
                bar.update()
                if in_a_row == MAX_FAILURES:
                    raise ValueError(f"{frame.name}: given up after {in_a_row} failures in a row")
                if self.stop.is_set():
                    break
        except Exception as error:  # of whatever kind: the next source may be fine
            self.problems.append(_words(error))
        finally:
            source.close()
            self.problems += source.problems
            if failed > MAX_NAMED:
                self.problems.append(f"{failed - MAX_NAMED} more frames failed")

    def _use_frame(self, source: Source, frame: Frame) -> str | None:
        """What was wrong, if anything. A video keeps its frame, else it would lose its time."""
        problem, drawn = None, frame.image if frame.number is not None else None
        try:
            found = self.detector(frame.image)
            self.results.add(frame, found)
            drawn = draw_boxes(frame.image, found, self.detector.detector.class_names)
        except Exception as error:
            problem = error
        try:
            if drawn is not None:
                source.write(frame, drawn)
        except Exception as error:
            problem = problem or error
        if problem is None:
            return None
        logger.debug("%s", frame.name, exc_info=problem)
        number = "" if frame.number is None else f", frame {frame.number}"
        return f"{frame.name}{number}: {_words(problem)}"


def _words(error: Exception) -> str:
    """One line; of what is not meant for users, the kind of error as well."""
    text = " ".join(str(error).split())
    return text if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: {text}"


def main(argv: list[str] | None = None) -> int:
    """Returns 1, after a line for each, if something was refused, broke off or was left out.

    Ctrl+C ends it at once, SIGTERM after the frame that is being worked on. Both keep what was
    done, and the video can be played.
    """
    args = parse_args(argv)
    setup_logger(name="nanodet_d2")
    try:
        sources = open_inputs(args.input, args.output, max_pixels=check_max_pixels(args.max_pixels))
        detector = TimedDetector(
            Detector(
                args.model,
                args.weights,
                num_threads=args.threads,
                score_thresh=args.threshold,
                metadata=args.metadata,
            )
        )
        results = Results(detector.detector.class_names, args.output)
    except (ValueError, OSError) as error:
        logger.error("%s", error)
        return 1
    with set_by_sigterm() as stop:
        run = Run(detector, results, stop=stop, max_frames=args.max_frames)
        try:
            run.use(sources)
        except KeyboardInterrupt:
            logger.warning("Stopped by Ctrl+C")
        finally:
            problems = run.problems + finish(results, detector, args.output)
        if stop.is_set():
            logger.warning("Stopped by SIGTERM")
    for problem in problems:
        logger.error("%s", problem)
    return int(bool(problems))


def finish(results: Results, detector: TimedDetector, output: Path) -> list[str]:
    """Write the COCO file and the summary; returns what was wrong."""
    problems = []
    try:
        results.close()
    except OSError as error:
        problems.append(f"{results.path} cannot be written ({error}); {results.lines} has it all")
    logger.info(
        "%d detections in %d pictures, %s; results are in %s",
        results.detections,
        results.pictures,
        detector.rate(),
        output,
    )
    return problems


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m nanodet_d2.demo", description=demo.__doc__)
    add = parser.add_argument
    add("model", type=Path, help=MODEL_HELP)
    add("--weights", help="the config's checkpoint, path or URL")
    add("--metadata", type=Path, help="json in place of the file's own metadata")
    add("--input", nargs="+", required=True, help="pictures, folders, videos, a camera's index")
    add("--output", type=Path, default=Path("output/detections"), help="folder to write")
    add("--threshold", type=float, default=0.35, help="lowest score of a detection")
    add("--threads", type=int, help="of the runtime")
    add("--max-pixels", type=int, default=MAX_PIXELS, help="of a picture; %(default)s")
    add("--max-frames", type=int, help="of each input, then stop")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
