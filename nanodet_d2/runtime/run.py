"""Detecting in the frames of sources, drawing, and writing what was found."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
import logging
import signal
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .detections import Detections
from .detector import Detector
from .draw import draw_detections
from .progress import progress
from .results import Results
from .sources import Frame, Source

RECENT = 200  # calls that the rate is of
MAX_FAILURES = 20  # frames in a row, after which a source is given up
MAX_NAMED = 5  # failed frames of a source that are told one by one
logger = logging.getLogger(__name__)


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

    def __call__(self, image: np.ndarray) -> Detections:
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
        known = [x.total for x in sources if x.total is not None]
        total = sum(known if limit is None else [min(x, limit) for x in known])
        with progress(total if len(known) == len(sources) else None, unit="frame") as bar:
            for source in sources:
                if not self.stop.is_set():
                    self._use_one(source, bar)

    def _use_one(self, source: Source, bar: Any) -> None:
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
            self.problems.append(in_words(error))
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
            drawn = draw_detections(frame.image, found)
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
        return f"{frame.name}{number}: {in_words(problem)}"


def in_words(error: Exception) -> str:
    """One line; of what is not meant for users, the kind of error as well."""
    text = " ".join(str(error).split())
    return text if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: {text}"


@dataclasses.dataclass(frozen=True)
class Done:
    """How many pictures and detections there were, and what was wrong, in words."""

    pictures: int
    detections: int
    problems: list[str]


def detect_in(
    sources: Sequence[Source], detector: Detector, output: Path, *, max_frames: int | None = None
) -> Done:
    """Detect in all frames of the sources, draw, and write.

    Into ``output`` go pictures (in ``pictures/``) or videos with boxes, ``detections.jsonl``, a
    line for each picture as it comes, and at the end ``detections.json`` in COCO format. Ctrl+C
    ends it at once, SIGTERM after the frame that is being worked on. Both keep what was done, and
    a video can be played.

    Args:
        max_frames: of each source; all if None.

    Raises:
        OSError: if nothing can be written there.
    """
    results = Results(detector.class_names, output)
    timed = TimedDetector(detector)
    with set_by_sigterm() as stop:
        run = Run(timed, results, stop=stop, max_frames=max_frames)
        try:
            run.use(sources)
        except KeyboardInterrupt:
            logger.warning("Stopped by Ctrl+C")
        finally:
            problems = run.problems + finish(results, timed, output)
        if stop.is_set():
            logger.warning("Stopped by SIGTERM")
    for problem in problems:
        logger.error("%s", problem)
    return Done(results.pictures, results.detections, problems)


def finish(results: Results, detector: TimedDetector, output: Path) -> list[str]:
    """Write the COCO file and the summary; returns what was wrong."""
    problems = []
    try:
        results.close()
    except OSError as error:
        problems.append(f"{results.path} cannot be written ({error}); {results.lines} has it all")
    logger.info(
        "%d detections, pictures: %d, %s; results are in %s",
        results.detections,
        results.pictures,
        detector.rate(),
        output,
    )
    return problems
