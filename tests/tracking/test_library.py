"""The package ``trackers`` behind the adapter: ids that last, and times that it is told."""

from __future__ import annotations

import numpy as np
import pytest

from nanodet_d2.tracking import Settings
from nanodet_d2.tracking.adapter import Follower, make_tracker

from .frames import found

pytest.importorskip("trackers")
LIBRARY = ("bytetrack", "ocsort", "sort")


def box(x: float, score: float = 0.9, y: float = 50.0) -> tuple[float, ...]:
    return x, y, x + 30, y + 30, score


def ids(tracker, frames, *, rate: float = 10.0, every: int = 1) -> list[list[int]]:
    return [
        tracker.update(found(*rows), every * i / rate).ids.tolist() for i, rows in enumerate(frames)
    ]


@pytest.mark.parametrize("name", LIBRARY)
def test_two_that_move_keep_their_ids(name):
    tracker = make_tracker(Settings(tracker=name), 10)
    result = ids(tracker, [[box(10 + 5 * i), box(300 - 5 * i, y=120)] for i in range(12)])
    assert all(len(x) == 2 for x in result[3:])
    assert len({tuple(sorted(x)) for x in result[3:]}) == 1
    assert min(result[-1]) >= 1


@pytest.mark.parametrize("name", LIBRARY)
def test_nothing_and_again_something(name):
    tracker = make_tracker(Settings(tracker=name), 10)
    assert ids(tracker, [[], [], []]) == [[], [], []]
    frames = [[box(10)]] * 4 + [[]] * 4 + [[box(10)]] * 2
    result = [
        tracker.update(found(*rows), 1 + i / 10).ids.tolist() for i, rows in enumerate(frames)
    ]
    assert result[3] == result[9] and len(result[3]) == 1  # half a second is bridged


def test_low_scores_reach_the_second_association():
    frames = [[box(10)]] * 4 + [[box(10, 0.15)]] * 15 + [[box(10)]] * 3
    result = ids(make_tracker(Settings(low=0.1), 10), frames)
    assert set(map(tuple, result[2:])) == {(1,)}
    blind = ids(make_tracker(Settings(low=0.3), 10), frames)
    assert blind[10] == [] and blind[-1] == [2]


def test_what_is_lost_for_longer_gets_another_id():
    frames = [[box(10)]] * 4 + [[]] * 15 + [[box(10)]] * 3
    assert ids(make_tracker(Settings(lost=1.0), 10), frames)[-1] == [2]
    assert ids(make_tracker(Settings(lost=2.0), 10), frames)[-1] == [1]


def test_frames_that_are_left_out_are_told():
    """Every third frame: a second without a box is a second, however many frames that is."""
    frames = [[box(10)]] * 4 + [[]] * 5 + [[box(10)]] * 3  # 1.8 s
    assert ids(make_tracker(Settings(lost=1.0), 10), frames, every=3)[-1] == [2]
    assert ids(make_tracker(Settings(lost=1.0), 10), frames, every=1)[-1] == [1]


def test_boxes_come_back_with_their_own_scores_and_classes():
    follow = Follower(Settings(), 10)
    for i in range(4):
        result = follow(found(box(10, 0.7), (*box(300, 0.9), 1)), i / 10)
    by_class = dict(
        zip(result.found.class_id.tolist(), zip(result.found.xyxy[:, 0], result.found.confidence))
    )
    assert by_class[0] == (10, np.float32(0.7)) and by_class[1] == (300, np.float32(0.9))
    assert sorted(result.ids.tolist()) == [1, 2]
