"""Pictures and tables of an evaluation and of a training."""

from __future__ import annotations

import json
import logging
import tracemalloc
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from detectron2.utils.events import EventStorage

from nanodet_d2.engine.confusion import (
    _dense,
    _most_confused,
    confusion_of,
    confusion_pairs,
    draw_confusion,
)
from nanodet_d2.engine.hooks import LoaderHint
from nanodet_d2.engine.report import (
    draw_curves,
    draw_precision_recall,
    write_evaluation_report,
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
    pairs = confusion_pairs(BOXES, np.array([0, 1, 1]), found, np.array([0, 0, 2, 1]), 3)
    # The third object was missed; 3 is the background.
    assert pairs == [(0, 0), (3, 0), (1, 2), (3, 1), (1, 3)]


def test_own_class_comes_first_and_none_is_no_error():
    pair = np.array([[0, 0, 10, 10], [0, 0, 10, 9]], dtype=np.float64)
    assert confusion_pairs(pair, np.array([0, 1]), pair[:1], np.array([1]), 2) == [(1, 1), (0, 2)]
    nothing = np.zeros((0, 4))
    none = np.zeros(0, dtype=int)
    three = np.array([0, 1, 1])
    assert confusion_pairs(nothing, none, nothing, none, 2) == []
    assert confusion_pairs(BOXES, three, nothing, none, 2) == [(0, 2), (1, 2), (1, 2)]
    assert confusion_pairs(nothing, none, BOXES, three, 2) == [(2, 0), (2, 1), (2, 1)]


def evaluation(num_classes: int, num_images: int) -> SimpleNamespace:
    """As COCO's evaluation, of images with an object each, every other one taken for the next."""
    boxes, found = {}, {}
    for i in range(num_images):
        common = {"id": i + 1, "bbox": [0, 0, 10, 10], "iscrowd": 0}
        boxes[i] = [{**common, "category_id": i % num_classes}]
        found[i] = [{**common, "category_id": (i + i % 2) % num_classes, "score": 0.9}]
    params = SimpleNamespace(catIds=list(range(num_classes)), imgIds=list(range(num_images)))
    precision = np.broadcast_to(np.float64(0.5), (10, 101, num_classes, 4, 3))
    return SimpleNamespace(
        cocoGt=SimpleNamespace(imgToAnns=boxes, anns={x["id"]: x for (x,) in boxes.values()}),
        cocoDt=SimpleNamespace(imgToAnns=found),
        params=params,
        eval={"precision": precision},
    )


def test_thousands_of_classes_need_little_memory_and_stay_readable(tmp_path):
    """A matrix per image took 11.6 MB with 1,200 classes, and 1.35 GB with 13,000."""
    names = [f"class {i}" for i in range(13_000)]
    content = evaluation(len(names), 400)
    tracemalloc.start()
    counts = confusion_of(content)
    shown = _most_confused(counts, len(names))
    assert _dense(counts, shown).shape == (100, 100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6
    write_evaluation_report(content, names, str(tmp_path))
    counts = json.loads((tmp_path / "confusion.json").read_text())["counts"]
    assert counts[:4] == [[0, 0, 1], [1, 2, 1], [2, 2, 1], [3, 4, 1]] and len(counts) == 400
    per_class = json.loads((tmp_path / "per_class.json").read_text())
    assert per_class["class 399"] == {"AP": 50.0, "AP50": 50.0, "objects": 1}
    assert per_class["class 400"]["objects"] == 0
    for name in ("precision_recall.png", "confusion.png"):
        assert cv2.imread(str(tmp_path / name)).std() > 5


def test_the_picture_of_many_classes_has_those_that_are_mistaken():
    counts = np.array([[3, 3, 9000], [700, 650, 5], [650, 700, 1], [4, 1000, 800], [1000, 2, 7]])
    shown = _most_confused(counts, 1000)
    assert len(shown) == 100 and shown[-1] == 1000 and (np.diff(shown) > 0).all()
    assert {650, 700} <= set(shown.tolist()) and 999 not in shown
    assert _most_confused(counts[:0], 2).tolist() == [0, 1, 2]


def test_class_names_are_not_read_as_formulas(tmp_path):
    names = ["a$_$b", "$", r"\$x_$", "{}"]
    draw_precision_recall(np.ones((101, 4)), names, tmp_path / "curves.png")
    draw_confusion(np.array([[0, 1, 2], [4, 4, 1]]), names, tmp_path / "confusion.png")
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


@pytest.mark.parametrize(
    "data_time, workers, words",
    [
        (0.15, 1, "Raise dataloader.train.num_workers (now 1; cores per process: 2)"),
        (0.15, 2, "Its 2 workers have 2 cores, so that more of them do not help. What does: data"),
        (0.15, 9, "Its 9 workers have 2 cores"),
        (0.02, 1, ""),
    ],
)
def test_a_slow_loader_is_named_once(caplog, monkeypatch, data_time, workers, words):
    monkeypatch.setattr("nanodet_d2.engine.hooks.usable_cores", lambda: 2)
    hook = LoaderHint(period=5)
    loader = SimpleNamespace(num_workers=workers)
    with EventStorage(0) as storage, caplog.at_level(logging.WARNING, logger="nanodet_d2"):
        for iteration in range(20):
            hook.trainer = SimpleNamespace(iter=iteration, storage=storage, data_loader=loader)
            storage.put_scalars(time=0.2, data_time=data_time)
            hook.after_step()
    if words:
        assert caplog.text.count("takes 75 % of a step") == 1 and words in caplog.text
    else:
        assert caplog.text == ""
