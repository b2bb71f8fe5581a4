"""Pictures and tables of an evaluation and of a training."""

from __future__ import annotations

import json
import logging
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from detectron2.utils.events import EventStorage

from nanodet_d2.engine.hooks import LoaderHint
from nanodet_d2.engine.report import (
    confusion_matrix,
    draw_confusion,
    draw_curves,
    draw_precision_recall,
)

BOXES = np.array([[0, 0, 10, 10], [20, 20, 10, 10], [40, 0, 10, 10]], dtype=np.float64)


def test_confusion_by_hand():
    found = np.array(
        [
            [0, 0, 10, 10],  # of class 0: right
            [0, 1, 10, 10],  # of class 0 again: the object is taken
            [20, 20, 10, 9],  # of class 2 where class 1 is
            [70, 70, 5, 5],  # on nothing
        ],
        dtype=np.float64,
    )
    matrix = confusion_matrix(BOXES, np.array([0, 1, 1]), found, np.array([0, 0, 2, 1]), 3)
    expected = np.zeros((4, 4), dtype=int)
    expected[0, 0] = 1
    expected[3, 0] = 1
    expected[1, 2] = 1
    expected[3, 1] = 1
    expected[1, 3] = 1  # the third object was missed
    assert np.array_equal(matrix, expected)


def test_own_class_comes_first_and_none_is_no_error():
    pair = np.array([[0, 0, 10, 10], [0, 0, 10, 9]], dtype=np.float64)
    matrix = confusion_matrix(pair, np.array([0, 1]), pair[:1], np.array([1]), 2)
    assert matrix[1, 1] == 1 and matrix[0, 2] == 1
    nothing = np.zeros((0, 4))
    none = np.zeros(0, dtype=int)
    assert confusion_matrix(nothing, none, nothing, none, 2).sum() == 0
    assert confusion_matrix(BOXES, np.array([0, 1, 1]), nothing, none, 2)[1, 2] == 2
    assert confusion_matrix(nothing, none, BOXES, np.array([0, 1, 1]), 2)[2, 1] == 2


def test_class_names_are_not_read_as_formulas(tmp_path):
    names = ["a$_$b", "$", r"\$x_$", "{}"]
    draw_precision_recall(np.ones((101, 4)), names, tmp_path / "curves.png")
    draw_confusion(np.eye(5, dtype=int), names, tmp_path / "confusion.png")
    assert cv2.imread(str(tmp_path / "curves.png")) is not None
    assert cv2.imread(str(tmp_path / "confusion.png")) is not None


def test_curves_are_drawn(tmp_path):
    lines = [
        {"iteration": i, "total_loss": 3 / (i + 1), "lr": 0.1, "time": 0.2, "data_time": 0.05}
        for i in range(10)
    ]
    lines.append({"iteration": 9, "bbox/AP": 12.0, "bbox/AP50": float("nan")})
    (tmp_path / "metrics.json").write_text("\n".join(map(json.dumps, lines)))
    draw_curves(tmp_path / "metrics.json", tmp_path / "curves.png")
    picture = cv2.imread(str(tmp_path / "curves.png"))
    assert picture.shape == (700, 1100, 3) and picture.std() > 10


def test_curves_are_drawn_without_the_lines_that_cannot_be_read(tmp_path):
    whole = ['{"iteration": 0, "total_loss": 3.0}', '{"iteration": 1, "total_loss": 2.0}']
    others = ['{"iteration": 1, "total_lo', "", "3", '{"total_loss": 9.0}', '{"iteration": "x"}']
    pictures = []
    for lines in (whole, whole[:1] + others + whole[1:]):
        (tmp_path / "metrics.json").write_bytes("\n".join(lines).encode() + b"\n\xff\0")
        draw_curves(tmp_path / "metrics.json", tmp_path / "curves.png")
        pictures.append(cv2.imread(str(tmp_path / "curves.png")))
    assert np.array_equal(*pictures)


@pytest.mark.parametrize("data_time, words", [(0.15, "takes 75 % of a step"), (0.02, "")])
def test_a_slow_loader_is_named_once(caplog, data_time, words):
    hook = LoaderHint(period=5, num_workers=3)
    with EventStorage(0) as storage, caplog.at_level(logging.WARNING, logger="nanodet_d2"):
        for iteration in range(20):
            hook.trainer = SimpleNamespace(iter=iteration, storage=storage)
            storage.put_scalars(time=0.2, data_time=data_time)
            hook.after_step()
    if words:
        assert caplog.text.count(words) == 1 and "num_workers (now 3;" in caplog.text
    else:
        assert caplog.text == ""
