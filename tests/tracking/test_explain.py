"""Planted failures of a tracker are named, with the threshold that would have avoided them."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from nanodet_d2.tracking import Settings
from nanodet_d2.tracking.explain import (
    ASSOCIATION,
    LOW_SCORE,
    MISSED,
    Seen,
    as_text,
    explain,
    find_switches,
    summary,
    track_recording,
)
from nanodet_d2.tracking.matching import iou_matrix, matches

from .frames import found, table

pytest.importorskip("scipy")
RATE = 10.0
NEAREST = Settings(tracker="nearest")
LIBRARY = pytest.mark.skipif(
    importlib.util.find_spec("trackers") is None, reason="trackers: pip install nanodet-d2[video]"
)


def box(x: float, y: float = 50.0, side: float = 20.0) -> tuple[float, float, float, float]:
    return x, y, x + side, y + side


def scene(frames: int, objects: dict[int, dict]) -> tuple:
    """Ground truth and what was found of objects: ``place`` (frame -> box), and by frame a
    ``score`` in place of 0.9, 0 for none; ``shown`` in place of the box that is found."""
    truth, seen = [], []
    for i in range(frames):
        rows = []
        for number, x in objects.items():
            place = x["place"](i)
            truth.append((i + 1, number, *place))
            score = x.get("score", {}).get(i, 0.9)
            if score:
                rows.append((*x.get("shown", {}).get(i, place), score))
        seen.append(Seen(i, i / RATE, found(*rows)))
    return table(*truth), seen


def still(x: float, y: float = 50.0):
    return lambda i: box(x, y)


def test_matching_stays_with_who_was_matched():
    truth = table((1, 1, *box(0)), (2, 1, *box(0)))
    tracks = table((1, 7, *box(2)), (2, 7, *box(4)), (2, 8, *box(0)))
    assert [x.track for x in matches(truth, tracks)] == [7, 7]  # 8 would overlap more
    assert iou_matrix(truth.boxes[:1], tracks.boxes)[0].round(3).tolist() == [0.818, 0.667, 1.0]


def test_boxes_of_another_class_are_not_matched():
    truth = table((1, 1, *box(0), 1))
    assert [x.track for x in matches(truth, table((1, 7, *box(0), 2)))] == [None]
    assert [x.track for x in matches(truth, table((1, 7, *box(0), 1)))] == [7]
    assert [x.track for x in matches(truth, table((1, 7, *box(0))))] == [7]  # -1: not told


def test_switches_by_hand():
    truth = table(*((i, 1, *box(0)) for i in range(1, 7)))
    tracks = table(*((i, t, *box(0)) for i, t in ((1, 5), (2, 5), (4, 6), (5, 6), (6, 5))))
    found_here = [(x.since, x.frame, x.was, x.now) for x in find_switches(truth, tracks)]
    assert found_here == [(2, 4, 5, 6), (5, 6, 6, 5)]
    assert find_switches(truth, truth) == [] == find_switches(truth, table())


# With ids from one frame to the next only, all that is missing for a frame is lost.
PLANTED = {
    1: {"place": still(10), "score": {5: 0.0}},
    2: {"place": still(60), "score": {8: 0.0, 9: 0.0}},
    3: {"place": still(110), "score": {4: 0.22}},
    4: {"place": still(160), "score": {7: 0.28, 8: 0.25}},
    # Their boxes leap further than they are wide, for a frame.
    5: {"place": lambda i: box(210 + 25 * (i >= 6))},
    6: {"place": lambda i: box(300 + 30 * (i >= 9))},
}


def test_six_planted_failures_of_the_simple_tracker():
    truth, seen = scene(14, PLANTED)
    switches = {x.object: x for x in explain(truth, seen, NEAREST, RATE)}
    assert {k: x.cause for k, x in switches.items()} == {
        1: MISSED, 2: MISSED, 3: LOW_SCORE, 4: LOW_SCORE, 5: ASSOCIATION, 6: ASSOCIATION
    }  # fmt: skip
    assert (switches[2].since, switches[2].frame, switches[2].missing) == (8, 11, 2)
    # The first number that lets all of them pass; there is none for what is not found at all.
    assert [(switches[i].option, switches[i].value) for i in (3, 4)] == [
        ("--high", 0.22), ("--high", 0.25)
    ]  # fmt: skip
    assert all(switches[i].option is None for i in (1, 2, 5, 6))


# A tracker that keeps what is lost for a second, and looks at scores from 0.1 on, needs more.
HARDER = {
    1: {"place": still(10), "score": dict.fromkeys(range(10, 26), 0.0)},
    2: {"place": still(60), "score": dict.fromkeys(range(12, 30), 0.0)},
    3: {"place": still(110), "score": dict.fromkeys(range(10, 24), 0.06)},
    4: {"place": still(160), "score": dict.fromkeys(range(11, 26), 0.04)},
    # Boxes that leap: no box of the frame after overlaps the one before by a tenth.
    5: {"place": lambda i: box(210 + 18.5 * (i >= 15), 50)},
    6: {"place": lambda i: box(300 + 18.8 * (i >= 18), 50)},
}


@LIBRARY
def test_six_planted_failures_of_bytetrack():
    truth, seen = scene(45, HARDER)
    settings = Settings()
    switches = {x.object: x for x in explain(truth, seen, settings, RATE)}
    assert {k: x.cause for k, x in switches.items()} == {
        1: MISSED, 2: MISSED, 3: LOW_SCORE, 4: LOW_SCORE, 5: ASSOCIATION, 6: ASSOCIATION
    }  # fmt: skip
    assert [switches[i].option for i in (1, 2)] == ["--lost"] * 2
    assert [(switches[i].option, switches[i].value) for i in (3, 4)] == [
        ("--low", 0.06), ("--low", 0.04)
    ]  # fmt: skip
    assert all(switches[i].option == "--min-iou" and switches[i].value < 0.1 for i in (5, 6))


@LIBRARY
@pytest.mark.parametrize("number, name", [(1, "lost"), (3, "low"), (5, "iou")])
def test_the_threshold_that_is_named_does_avoid_it(number, name):
    truth, seen = scene(45, {number: HARDER[number]})
    (switch,) = explain(truth, seen, Settings(), RATE)
    better = Settings(**{name: switch.value})
    assert find_switches(truth, track_recording(seen, better, RATE)) == []


def test_an_object_that_was_hidden_counts_as_association():
    """Nothing was missed: the ground truth says that it could not be seen."""
    truth, seen = scene(9, {1: {"place": still(10), "score": {4: 0.0}}})
    truth = truth[truth.frames != 5]
    (switch,) = explain(truth, seen, NEAREST, RATE)
    assert (switch.cause, switch.missing, switch.weak) == (ASSOCIATION, 0, 0)


def test_in_words():
    truth, seen = scene(14, PLANTED)
    switches = explain(truth, seen, NEAREST, RATE)
    assert summary(switches) == {
        "switches": 6,
        "causes": {"missed": 2, "low score": 2, "association": 2},
        "avoided_by": {"--high 0.22": 1, "--high 0.25": 1},
    }
    lines = as_text(switches)
    assert lines[0] == "6 identity switches: 2 missed, 2 low score, 2 association"
    assert any(
        "object 3 goes from track" in x and "low score (1 frames in between" in x
        and "--high 0.22 avoids it" in x for x in lines
    )  # fmt: skip
    assert as_text([]) == ["0 identity switches: 0 missed, 0 low score, 0 association"]


def test_nothing_was_found_at_all():
    truth, seen = scene(5, {1: {"place": still(10), "score": dict.fromkeys(range(5), 0.0)}})
    assert explain(truth, seen, NEAREST, RATE) == []
    assert len(track_recording(seen, NEAREST, RATE)) == 0
    assert len(track_recording([], NEAREST, RATE)) == 0
    assert np.isfinite(track_recording(seen, NEAREST, RATE).boxes).all()
