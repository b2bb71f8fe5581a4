"""Why tracks change their ids: what was missing, and which threshold would have kept them.

An identity switch is CLEAR MOT's: an object is with one track, and the next time it is with any, it
is with another. What happened in between, in the frames in which the object was there and no track
had it, is seen in what the detector found there at any score:

- *missed*: in most of these frames no box of any score is the object's;
- *low score*: in most of them there is one, with a score that the tracker does not look at;
- *association*: the boxes were there, and the tracker gave them to no track, or to another one.

A threshold is named only if it was tried: the tracker runs again on the same detections, and the
object is with one track before and after.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nanodet_d2.runtime import Detections

from .adapter import Follower
from .matching import SAME, by_frame, iou_matrix, matches
from .mot import MotTable
from .settings import Settings

MISSED, LOW_SCORE, ASSOCIATION = "missed", "low score", "association"
CAUSES = (MISSED, LOW_SCORE, ASSOCIATION)
FLOOR = 0.01  # lowest score that is recorded to explain with
OPTIONS = {"low": "--low", "high": "--high", "iou": "--min-iou", "lost": "--lost"}
_IOUS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7)  # that are tried
_ONE_ASSOCIATION = ("sort", "ocsort", "nearest")  # trackers that look at nothing below ``high``
_SLACK = 1.1  # of the seconds that a track has to be kept


@dataclasses.dataclass(frozen=True)
class Seen:
    """What the detector found in a frame, down to ``FLOOR``.

    Attributes:
        number: of the frame, from 0 on.
        seconds: when it was taken.
    """

    number: int
    seconds: float
    found: Detections


@dataclasses.dataclass(frozen=True)
class Switch:
    """An object that goes from one track to another.

    Attributes:
        frame: in which it is with the other one for the first time; from 1 on, as in MOT text.
        since: the last one in which it was with the one before.
        object: its id in the ground truth.
        was, now: ids of the tracks.
        cause: one of ``CAUSES``.
        missing: frames in between with no box of any score.
        weak: frames in between with a box whose score the tracker does not look at.
        option: the command's option that would have avoided it, None if none of those tried does.
        value: of the option.
    """

    frame: int
    since: int
    object: int
    was: int
    now: int
    cause: str = ASSOCIATION
    missing: int = 0
    weak: int = 0
    option: str | None = None
    value: float | None = None


def track_recording(seen: Sequence[Seen], settings: Settings, frame_rate: float) -> MotTable:
    """Run a tracker on what was found."""
    follow = Follower(settings, frame_rate)
    parts = [(x.number + 1, follow(x.found, x.seconds)) for x in seen]
    sizes = np.array([len(tracked) for _, tracked in parts], np.int64)
    return MotTable(
        frames=np.repeat(np.array([number for number, _ in parts], np.int64), sizes),
        ids=np.concatenate([np.zeros(0, np.int64), *(x.ids for _, x in parts)]),
        boxes=np.concatenate([np.zeros((0, 4)), *(x.found.xyxy for _, x in parts)]),
        scores=np.concatenate([np.zeros(0), *(x.found.confidence for _, x in parts)]),
        classes=np.concatenate([np.zeros(0, np.int64), *(x.found.class_id + 1 for _, x in parts)]),
    )


def find_switches(truth: MotTable, tracks: MotTable) -> list[Switch]:
    """All identity switches, in order, without their causes."""
    last: dict[int, tuple[int, int]] = {}
    found = []
    for match in matches(truth, tracks):
        if match.track is None:
            continue
        since, was = last.get(match.object, (0, match.track))
        if was != match.track:
            found.append(Switch(match.frame, since, match.object, was, match.track))
        last[match.object] = (match.frame, match.track)
    return found


def explain(
    truth: MotTable, seen: Sequence[Seen], settings: Settings, frame_rate: float
) -> list[Switch]:
    """The identity switches of a tracker on what was found, with their causes.

    Args:
        seen: of all frames, in order.
        frame_rate: frames a second of the video.
    """
    tries = _Tries(truth, seen, frame_rate)
    objects, boxes = by_frame(truth), {x.number + 1: x.found for x in seen}
    result = []
    for switch in find_switches(truth, tries.tracks(settings)):
        scores = _scores_between(switch, objects, boxes)
        switch = _with_cause(switch, scores, settings)
        seconds = (switch.frame - switch.since) / frame_rate
        for name, value in _proposals(switch, scores, settings, seconds):
            if tries.avoids(switch, _changed(settings, name, value)):
                switch = dataclasses.replace(switch, option=OPTIONS[name], value=value)
                break
        result.append(switch)
    return result


def _scores_between(
    switch: Switch, objects: dict[int, MotTable], boxes: dict[int, Detections]
) -> list[float]:
    """The best score of a box that is the object's, or 0, in each frame in which it was lost."""
    scores = []
    for number in range(switch.since + 1, switch.frame):
        rows = objects[number] if number in objects else None
        if rows is None or number not in boxes:
            continue
        box = rows.boxes[rows.ids == switch.object]
        if len(box):  # it was there
            same = iou_matrix(box, boxes[number].xyxy)[0] >= SAME
            scores.append(float(boxes[number].confidence[same].max(initial=0.0)))
    return scores


def _bar(settings: Settings) -> float:
    """The lowest score that the tracker looks at."""
    return settings.high if settings.tracker in _ONE_ASSOCIATION else settings.low


def _with_cause(switch: Switch, scores: Sequence[float], settings: Settings) -> Switch:
    missing = sum(x == 0 for x in scores)
    weak = sum(0 < x < _bar(settings) for x in scores)
    cause = ASSOCIATION
    if missing + weak > len(scores) / 2:
        cause = MISSED if missing >= weak else LOW_SCORE
    return dataclasses.replace(switch, cause=cause, missing=missing, weak=weak)


def _proposals(
    switch: Switch, scores: Sequence[float], settings: Settings, seconds: float
) -> Iterator[tuple[str, float]]:
    """Thresholds to try, the most likely ones first."""
    weak = [x for x in scores if 0 < x < _bar(settings)]
    name = "high" if settings.tracker in _ONE_ASSOCIATION else "low"
    # in whole hundredths; a float32 score of 0.22 is a little less
    lower = [(name, math.floor(100 * min(weak) + 1e-3) / 100)] if weak else []
    needed = math.ceil(10 * _SLACK * seconds) / 10
    longer = [("lost", needed)] if needed > settings.lost else []
    others = sorted((x for x in _IOUS if x != settings.iou), key=lambda x: abs(x - settings.iou))
    looser = [("iou", x) for x in others if x < settings.iou]
    stricter = [("iou", x) for x in others if x > settings.iou]
    yield from [*lower, *longer] if switch.cause == LOW_SCORE else [*longer, *lower]
    yield from [*looser, *stricter]


def _changed(settings: Settings, name: str, value: float) -> Settings:
    changed: dict[str, Any] = {name: value}
    if name == "high":
        changed["low"] = min(settings.low, value)
    return dataclasses.replace(settings, **changed)


class _Tries:
    """Trackers that were run on the recording, each once."""

    def __init__(self, truth: MotTable, seen: Sequence[Seen], frame_rate: float):
        self._truth, self._seen, self._frame_rate = truth, seen, frame_rate
        self._tracks: dict[Settings, MotTable] = {}
        self._matched: dict[Settings, dict[tuple[int, int], int | None]] = {}

    def tracks(self, settings: Settings) -> MotTable:
        if settings not in self._tracks:
            self._tracks[settings] = track_recording(self._seen, settings, self._frame_rate)
        return self._tracks[settings]

    def avoids(self, switch: Switch, settings: Settings) -> bool:
        """Whether the object is with one track before and after."""
        if settings not in self._matched:
            found = matches(self._truth, self.tracks(settings))
            self._matched[settings] = {(x.frame, x.object): x.track for x in found}
        matched = self._matched[settings]
        before = matched.get((switch.since, switch.object))
        return before is not None and before == matched.get((switch.frame, switch.object))


def summary(switches: Sequence[Switch]) -> dict[str, Any]:
    """How many there are of each cause, and how many each option would have avoided."""
    causes = collections.Counter(x.cause for x in switches)
    avoided = collections.Counter(f"{x.option} {x.value:g}" for x in switches if x.option)
    return {
        "switches": len(switches),
        "causes": {name: causes[name] for name in CAUSES},
        "avoided_by": dict(avoided.most_common()),
    }


def as_text(switches: Sequence[Switch]) -> list[str]:
    """A line for all, and one for each."""
    told = summary(switches)
    causes = ", ".join(f"{count} {name}" for name, count in told["causes"].items())
    lines = [f"{len(switches)} identity switches: {causes}"]
    for x in switches:
        between = f"{x.frame - x.since - 1} frames in between"
        remedy = f"{x.option} {x.value:g} avoids it" if x.option else "no threshold avoids it"
        lines.append(
            f"  frame {x.frame}: object {x.object} goes from track {x.was} to {x.now}: {x.cause} "
            f"({between}, {x.missing} without a box, {x.weak} with a low score); {remedy}"
        )
    return lines
