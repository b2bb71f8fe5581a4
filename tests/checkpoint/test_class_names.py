"""Classes of a checkpoint that a new model takes over, by their names."""

from __future__ import annotations

import logging

import pytest
import torch

from nanodet_d2.checkpoint import Card, load_weights
from nanodet_d2.checkpoint.class_names import (
    COCO_CLASSES,
    SYNONYMS,
    match_classes,
    names_of_rows,
    starting_rows,
)


@pytest.mark.parametrize(
    "name, coco",
    [
        ("person", "person"),
        ("Person", "person"),
        ("people", "person"),
        ("Pedestrians", "person"),
        ("cups", "cup"),
        ("Traffic_Light", "traffic light"),
        ("sports-ball", "sports ball"),
        ("buses", None),
        ("bus", "bus"),
        ("aeroplane", "airplane"),
        ("tvmonitor", "tv"),
        ("sheep", "sheep"),
        ("skis", "skis"),
        ("mug", "cup"),
        ("Platelets", None),
        ("ace", None),
        ("car wash", None),
        ("", None),
    ],
)
def test_names_that_are_cocos(name, coco):
    match = match_classes([name], COCO_CLASSES)
    assert [COCO_CLASSES[i] for i in match.rows.values()] == ([coco] if coco else [])


def test_synonyms_are_cocos_classes():
    assert len(COCO_CLASSES) == 80 and set(SYNONYMS.values()) <= set(COCO_CLASSES)
    assert match_classes(COCO_CLASSES, COCO_CLASSES).same
    assert match_classes(COCO_CLASSES, COCO_CLASSES).rows == {i: i for i in range(80)}


def test_the_name_as_it_is_goes_first():
    assert match_classes(["cups", "cup"], ["cup", "cups"]).rows == {0: 1, 1: 0}
    match = match_classes(["man", "woman", "ace"], ["person", "ace"])
    assert match.rows == {0: 0, 1: 0, 2: 1} and not match.same
    assert str(match) == "taken over: man (from person), woman (from person), ace; new: none"
    assert match_classes(["a"], None).same and match_classes(["a"], None).rows == {}


def test_names_are_known_where_their_number_fits():
    assert names_of_rows(None, 80) == COCO_CLASSES
    assert names_of_rows(None, 3) is None
    assert names_of_rows(("a", "b"), 2) == ("a", "b")
    assert names_of_rows(("a", "b"), 3) is None
    assert names_of_rows(("class 0", "class 1"), 2) is None


@pytest.mark.parametrize(
    "count, known, taken, rows",
    [
        (3, 80, {}, {0: (0,), 1: (26,), 2: (53,)}),
        (1, 1, {}, {0: (0,)}),
        (3, 4, {0: 2, 2: 1}, {0: (2,), 2: (1,), 1: (0,)}),
        (2, 1, {0: 0}, {0: (0,), 1: (0,)}),  # nothing else is there
        (7, 3, {}, {0: (0,), 1: (1,), 2: (2,), 3: (0, 1), 4: (1, 2), 5: (2, 0)}),
        (3, 1, {}, {0: (0,)}),
        (0, 80, {}, {}),
    ],
)
def test_new_classes_start_from_others(count, known, taken, rows):
    assert starting_rows(count, known, taken) == rows


@pytest.mark.parametrize("count", [1, 2, 6, 79, 80, 81, 300, 3000])
def test_no_two_new_classes_start_from_the_same(count):
    found = starting_rows(count, 80, {})
    assert len(found) == count
    assert all(0 <= x < 80 for rows in found.values() for x in rows)
    assert len({frozenset(rows) for rows in found.values()}) == count


def save(path, state, names) -> str:
    card = Card("run", tuple(names), (64, 64), "{}", "0.1.0").to_dict()
    torch.save({"model": state, "card": card}, path)
    return str(path)


def test_rows_of_known_classes_are_taken_over(build_model, tmp_path, caplog):
    saved = build_model(num_classes=4)
    with torch.no_grad():
        for i, p in enumerate(saved.parameters()):
            p.copy_(torch.arange(p.numel()).view_as(p) / 1000 + i)
    path = save(tmp_path / "w.pth", saved.state_dict(), ["dog", "cup", "ace", "king"])
    model = build_model(num_classes=3)
    with caplog.at_level(logging.INFO, logger="nanodet_d2"):
        report = load_weights(model, path, class_names=["Aces", "queen", "cup"])
    assert not report.same_classes
    assert "taken over: Aces (from ace), cup; new: queen" in caplog.text
    state, before = model.state_dict(), saved.state_dict()
    for name in (*report.reset_classes,):
        assert torch.equal(state[name][0], before[name][2]), name
        assert torch.equal(state[name][1], before[name][0]), name  # as the dog
        assert torch.equal(state[name][2], before[name][1]), name
        assert torch.equal(state[name][3:], before[name][4:]), name
    assert {"head.predictors.0.bias", "aux_head.class_predictor.weight"} <= {*report.reset_classes}


def test_as_many_classes_in_another_order_are_put_in_order(build_model, tmp_path):
    saved = build_model(num_classes=3)
    with torch.no_grad():
        for p in saved.parameters():
            p.copy_(torch.rand_like(p))
    path = save(tmp_path / "w.pth", saved.state_dict(), ["a", "b", "c"])
    same, moved, unnamed = (build_model(num_classes=3) for _ in range(3))
    assert load_weights(same, path, class_names=["a", "b", "c"]).same_classes
    assert not load_weights(moved, path, class_names=["c", "a", "b"]).same_classes
    assert load_weights(unnamed, path).same_classes
    bias = "head.predictors.1.bias"
    rows = saved.state_dict()[bias]
    assert torch.equal(same.state_dict()[bias], rows)
    assert torch.equal(unnamed.state_dict()[bias], rows)
    assert torch.equal(moved.state_dict()[bias], torch.cat([rows[[2, 0, 1]], rows[3:]]))
