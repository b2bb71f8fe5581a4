"""Ids from frame to frame, classes that stay, and MOT text."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from nanodet_d2.runtime import Detections
from nanodet_d2.tracking import Settings, Tracked
from nanodet_d2.tracking.adapter import Follower, make_tracker
from nanodet_d2.tracking.mot import MotFile, mot_lines, read_mot
from nanodet_d2.tracking.nearest import Nearest
from nanodet_d2.tracking.tracked import SteadyClasses

from .frames import found, tracked

NEAREST = Settings(tracker="nearest")


def ids(tracker, *frames: Detections) -> list[list[int]]:
    return [tracker.update(x, i / 10).ids.tolist() for i, x in enumerate(frames)]


def test_the_nearest_box_keeps_its_id():
    a, b = (10, 10, 30, 30, 0.9), (100, 10, 120, 30, 0.9)
    moved = [(x0 + 4, y0, x1 + 4, y1, score) for x0, y0, x1, y1, score in (b, a)]
    assert ids(Nearest(NEAREST), found(a, b), found(*moved)) == [[1, 2], [2, 1]]


def test_nearest_looks_back_one_frame_and_not_far():
    a = (10, 10, 30, 30, 0.9)
    assert ids(Nearest(NEAREST), found(a), found(), found(a)) == [[1], [], [2]]
    far = (31, 10, 51, 30, 0.9)  # 21 px away, and 20 px wide
    assert ids(Nearest(NEAREST), found(a), found(far)) == [[1], [2]]
    weak = (10, 10, 30, 30, 0.3)
    assert ids(Nearest(NEAREST), found(a), found(weak)) == [[1], []]


def test_two_near_boxes_do_not_share_an_id():
    a, b = (10, 10, 30, 30, 0.9), (14, 10, 34, 30, 0.8)
    assert ids(Nearest(NEAREST), found(a), found(b, a)) == [[1], [2, 1]]


def test_a_track_has_the_class_that_most_speaks_for():
    steady = SteadyClasses(seconds=1.0)

    def label(given: int, now: float, score: float = 0.9) -> int:
        one = Tracked(found((0, 0, 9, 9, score, given)), np.array([5]))
        return int(steady(one, now).found.class_id[0])

    assert [label(1, 0.0), label(0, 0.1, 0.4), label(0, 0.2, 0.4)] == [1, 1, 1]
    assert label(0, 0.3, 0.4) == 0  # 1.2 against 0.9
    assert label(1, 2.0, 0.1) == 1  # forgotten


def test_follower_keeps_ids_and_classes():
    follow = Follower(NEAREST, 10)
    result = [
        follow(found((10, 10, 30, 30, 0.9, label)), i / 10) for i, label in enumerate([1, 1, 0])
    ]
    assert [x.ids.tolist() for x in result] == [[1]] * 3
    assert [x.found.class_id.tolist() for x in result] == [[1]] * 3


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"tracker": "deepsort"}, "tracker 'deepsort'; allowed: bytetrack, ocsort, sort, nearest"),
        ({"low": 0.5}, "allowed: 0 <= low <= high <= start <= 1"),
        ({"start": 1.1}, "allowed: 0 <= low <= high <= start <= 1"),
        ({"iou": 0}, "iou 0; allowed: above 0, below 1"),
        ({"lost": float("inf")}, "lost inf; allowed: seconds"),
        ({"confirm": 0}, "confirm 0; allowed: 1 or more"),
    ],
)
def test_settings_that_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Settings(**arguments)


def test_a_library_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"tracker bytetrack needs trackers, .*nanodet-d2\[video"):
        make_tracker(Settings(), 30)
    assert make_tracker(NEAREST, 30)


def test_mot_text_by_hand(tmp_path):
    assert mot_lines(0, tracked((3, 100, 50, 1))) == [
        "1,3,90.00,40.00,20.00,20.00,0.9000,2,-1,-1\n"
    ]
    file = MotFile(tmp_path / "a" / "clip.txt")
    file.add(4, tracked((3, 100, 50, 1), (1, 30, 20)))
    file.add(9, tracked())
    file.add(10, tracked((1, 31, 20)))
    file.close()
    table = read_mot(file.path)
    assert table.frames.tolist() == [5, 5, 11] and table.ids.tolist() == [1, 3, 1]
    assert table.boxes[1].tolist() == [90, 40, 110, 60] and table.classes.tolist() == [1, 2, 1]


def test_ground_truth_leaves_out_what_is_not_to_be_found(tmp_path):
    path = tmp_path / "gt.txt"
    path.write_text("2,1,0,0,5,5,1,1,0.3\n1,1,0,0,5,5,0,1,1.0\n\n1,2,0,0,5,5,1,1,1\n")
    assert read_mot(path, is_truth=True).frames.tolist() == [1, 2]
    assert len(read_mot(path)) == 3
    path.write_text("")
    assert len(read_mot(path)) == 0
    path.write_text("1,1,0,0,5,5\n")
    table = read_mot(path, is_truth=True)
    assert table.scores.tolist() == [1] and table.classes.tolist() == [-1]


@pytest.mark.parametrize(
    "text, message",
    [
        ("1,2,3\n", "is no MOT text; allowed: frame,id,left"),
        ("1,2,3,4,5,x\n", "is no MOT text"),
        ("1,1,0,0,5,5\n1,2,0,0,5\n", "is no MOT text"),
        ("1,1,0,0,5,nan\n", "is no MOT text"),
        ("1,1,0,0,5,5\n1,1,9,9,5,5\n", "has id 1 twice in frame 1"),
        ("0,1,0,0,5,5\n", "has frame 0; allowed: 1 or more"),
    ],
)
def test_other_text_is_refused(tmp_path, text, message):
    path = tmp_path / "gt.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_mot(path)
    with pytest.raises(FileNotFoundError, match="MOT file .* not found"):
        read_mot(tmp_path / "absent.txt")
