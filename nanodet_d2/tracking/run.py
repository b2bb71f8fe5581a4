"""Tracking in all frames of sources, one source after the other."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nanodet_d2.runtime import Detections, Detector
from nanodet_d2.runtime.progress import progress
from nanodet_d2.runtime.run import TimedDetector, finish, in_words, set_by_sigterm
from nanodet_d2.runtime.sources import Frame, Pictures, Source, Video

from .adapter import require_extra
from .explain import as_text, explain, summary
from .follow import Failures, FollowVideo, Wishes
from .mot import MotTable, read_mot
from .pipeline import Flow, run_pipeline
from .results import TrackResults
from .scores import score_tracks

logger = logging.getLogger(__name__)

FOLDER = "mot"  # of the MOT texts and csv files


@dataclasses.dataclass
class Done:
    """What was done, and what was wrong, in words.

    Attributes:
        videos: facts of each source.
        scores: against the ground truth, if any.
        explanation: of the identity switches of all videos, if asked for.
        lines: the same explanation, to be read.
    """

    videos: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)
    scores: dict[str, float] | None = None
    explanation: dict[str, Any] | None = None
    lines: list[str] = dataclasses.field(default_factory=list)


def track_in(
    sources: Sequence[Source],
    detector: Detector,
    output: Path,
    wish: Wishes,
    *,
    truths: Sequence[Path] = (),
) -> Done:
    """Track in all frames of the sources, draw, count, and write.

    Into ``output`` go videos or pictures with tracks, ``tracks.jsonl``, a line for each frame as it
    comes, at the end ``tracks.json``, and in ``mot/`` a MOT text and a csv of counts for each
    source. Ctrl+C ends it at once, SIGTERM after the frame that is being worked on; what was done
    is kept.

    Args:
        detector: with a score threshold not above what the tracker looks at.
        truths: MOT texts of what is in the sources, one for each; scored, and explained where the
            wish says that what is found is recorded.

    Raises:
        OSError: if nothing can be written there.
        ValueError: for another number of truths, or one that cannot be read.
        ImportError: for a tracker or a score whose library is not installed.
    """
    if truths and len(truths) != len(sources):
        raise ValueError(
            f"{len(truths)} ground truths for {len(sources)} inputs; allowed: one each"
        )
    if truths:
        require_extra(["trackeval"], "scoring tracks")
    tables = [read_mot(path, is_truth=True) for path in truths]
    results = TrackResults(detector.class_names, output)
    timed = TimedDetector(detector)
    done = Done()
    followed: list[FollowVideo] = []
    with set_by_sigterm() as stop, progress(_total(sources, wish), unit="frame") as bar:
        try:
            for name, source in zip(_names(sources), sources):
                if stop.is_set():
                    break
                follow = FollowVideo(source, name, results, output / FOLDER, wish)
                followed.append(follow)
                _run_one(source, name, timed, follow, stop, bar, done)
        except KeyboardInterrupt:
            logger.warning("Stopped by Ctrl+C")
        finally:
            done.problems += finish(results, timed, output)
        if stop.is_set():
            logger.warning("Stopped by SIGTERM")
    if tables:
        _judge(done, followed, tables)
    for problem in done.problems:
        logger.error("%s", problem)
    return done


def _run_one(
    source: Source,
    name: str,
    detector: TimedDetector,
    follow: FollowVideo,
    stop: threading.Event,
    bar: Any,
    done: Done,
) -> None:
    """One source; what fails does not cost the others."""
    failures, flow = Failures(), Flow()

    def detect(frame: Frame) -> Detections | None:
        try:
            found = detector(frame.image)
        except Exception as error:
            failures.add(frame, error)
            return None
        failures.success()
        bar.set_postfix_str(detector.rate(), refresh=False)  # in the thread that times the calls
        return found

    def use(frame: Frame, found: Detections | None) -> None:
        follow(frame, found)
        bar.update()

    live = isinstance(source, Video) and source.camera
    try:
        frames = itertools.islice(source, follow.wish.max_frames)
        run_pipeline(frames, detect, use, live=live, stop=stop, flow=flow)
    except Exception as error:  # of whatever kind: the next source may be fine
        done.problems.append(in_words(error))
    finally:
        source.close()
        follow.close()
        done.problems += [*failures.close(), *follow.failures.close(), *source.problems]
        done.videos.append({"name": name, **flow.facts(), **follow.facts()})
        if flow.dropped:
            logger.info("%s: %d frames came too fast and were dropped", name, flow.dropped)


def _judge(done: Done, followed: Sequence[FollowVideo], truths: Sequence[MotTable]) -> None:
    """Fill in scores and explanations."""
    pairs, switches = {}, []
    for video, follow, truth in zip(done.videos, followed, truths):
        seen = _of_frames_that_were_seen(truth, follow)
        pairs[video["name"]] = (seen, read_mot(follow.mot_path))
        if follow.wish.record:
            found = explain(seen, follow.seen, follow.wish.settings, follow.frame_rate)
            video["switches"] = [dataclasses.asdict(x) for x in found]
            done.lines += [f"{video['name']}:", *as_text(found)]
            switches += found
    done.scores = score_tracks(pairs)
    if switches or any(follow.wish.record for follow in followed):
        done.explanation = summary(switches)


def _of_frames_that_were_seen(truth: MotTable, follow: FollowVideo) -> MotTable:
    numbers = truth.frames - 1
    return truth[(numbers % follow.source.every == 0) & (numbers <= follow.last)]


def _names(sources: Sequence[Source]) -> list[str]:
    """A name for each, of its file or folder, made unique by a number."""
    found: list[str] = []
    for source in sources:
        if isinstance(source, Pictures):
            stem = source.root.resolve().name if len(source.paths) > 1 else source.paths[0].stem
        else:
            stem = source.path.stem
        name, number = stem, 2
        while name in found:
            name, number = f"{stem}_{number}", number + 1
        found.append(name)
    return found


def _total(sources: Sequence[Source], wish: Wishes) -> int | None:
    """Frames of all sources, None if one does not know."""
    known = [x.total for x in sources if x.total is not None]
    if len(known) < len(sources):
        return None
    limit = wish.max_frames
    return sum(x if limit is None else min(x, limit) for x in known)
