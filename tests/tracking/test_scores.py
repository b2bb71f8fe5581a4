"""HOTA, IDF1 and MOTA of tracks, by TrackEval."""

from __future__ import annotations

import numpy as np
import pytest

from nanodet_d2.tracking.explain import find_switches
from nanodet_d2.tracking.scores import as_trackeval, score_tracks

from .frames import table

pytest.importorskip("trackeval")


def walk(number: int, frames, x: float, *label: int) -> list[tuple]:
    return [(i, number, x + i, 0, x + i + 10, 10, *label) for i in frames]


TRUTH = table(*sorted(walk(1, range(1, 11), 0) + walk(2, range(1, 11), 50)))


def test_tracks_that_are_right():
    scores = score_tracks({"a": (TRUTH, TRUTH)})
    assert [scores[x] for x in ("HOTA", "DetA", "AssA", "MOTA", "IDF1")] == [100] * 5
    assert scores["IDSW"] == 0 and scores["CLR_TP"] == 20


def test_one_switch_by_hand():
    """Object 1 is with track 1 for five frames, and with track 3 for five."""
    rows = walk(1, range(1, 6), 0) + walk(3, range(6, 11), 0) + walk(2, range(1, 11), 50)
    scores = score_tracks({"a": (TRUTH, table(*sorted(rows)))})
    assert scores["IDSW"] == 1
    assert scores["MOTA"] == 95  # 1 of 20
    assert scores["IDF1"] == pytest.approx(75)  # 15 of 20 boxes have their track's id
    assert scores["DetA"] == 100
    # 10 boxes of association 1, 10 of 5 / (10 + 5 - 5)
    assert scores["AssA"] == pytest.approx(75)
    assert scores["HOTA"] == pytest.approx(100 * np.sqrt(0.75), abs=1e-3)


@pytest.mark.parametrize("seed", range(8))
def test_as_many_switches_are_explained_as_trackeval_counts(seed):
    rng = np.random.default_rng(seed)
    truth, tracks = [], []
    for frame in range(1, 40):
        ids = rng.permutation(5) if rng.random() < 0.3 else np.arange(5)
        for number in range(4):
            x = 8 * number + frame  # they overlap, so that who was matched before matters
            if rng.random() < 0.8:
                truth.append((frame, number, x, 0, x + 10, 10))
            if rng.random() < 0.8:
                x += rng.normal(0, 2)
                tracks.append((frame, int(ids[number]), x, 0, x + 10, 10))
    sides = table(*truth), table(*sorted(tracks))
    switches = score_tracks({"a": sides})["IDSW"]
    assert len(find_switches(*sides)) == switches > 10


def test_classes_are_apart_where_both_sides_tell_them():
    truth = table(*walk(1, range(1, 11), 0, 1))
    other = table(*walk(1, range(1, 11), 0, 2))
    untold = table(*walk(1, range(1, 11), 0))
    assert score_tracks({"a": (truth, other)})["HOTA"] == 0
    assert score_tracks({"a": (truth, untold)})["HOTA"] == 100
    assert score_tracks({"a": (untold, other)})["HOTA"] == 100


def test_videos_are_put_together():
    scores = score_tracks({"a": (TRUTH, TRUTH), "b": (TRUTH, table())})
    assert scores["CLR_TP"] == 20 and scores["CLR_FN"] == 20 and scores["MOTA"] == 50


def test_nothing_to_score():
    with pytest.raises(ValueError, match="the ground truth has no object"):
        score_tracks({"a": (table(), TRUTH)})


def test_the_form_that_trackeval_takes():
    truth = table((2, 40, 0, 0, 10, 10), (2, 70, 50, 0, 60, 10))
    data = as_trackeval(truth, table((3, 9, 0, 0, 10, 10)))
    assert data["num_timesteps"] == 3 and data["num_gt_ids"] == 2 and data["num_tracker_ids"] == 1
    assert [x.tolist() for x in data["gt_ids"]] == [[], [0, 1], []]
    assert [x.tolist() for x in data["tracker_ids"]] == [[], [], [0]]
    assert [x.shape for x in data["similarity_scores"]] == [(0, 0), (2, 0), (0, 1)]
