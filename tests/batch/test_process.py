"""A process that dies, fails or hangs costs its picture a row with the reason, and no other."""

from __future__ import annotations

import functools
import json
import threading
import time

import pytest

from nanodet_d2.batch import process as module
from nanodet_d2.batch.items import Item
from nanodet_d2.batch.plan import plan
from nanodet_d2.batch.process import Guard, Stopped
from nanodet_d2.batch.shards import ShardFiles
from tests.batch.fake import (
    BLUE,
    GREEN,
    RED,
    BrokenEngine,
    Fake,
    Other,
    Slow,
    Unopenable,
    draw,
    work,
)


def rows_of(guard: Guard, items) -> list[dict]:
    return [json.loads(line) for line in guard(items).splitlines()]


@pytest.mark.parametrize(
    "attempts, hangs",
    [(1, {}), pytest.param(module.ATTEMPTS, {"hangs": GREEN}, marks=pytest.mark.slow)],
)
def test_each_picture_has_its_row_whatever_it_does(tmp_path, monkeypatch, attempts, hangs):
    monkeypatch.setattr(module, "ATTEMPTS", attempts)
    colors = {"a": 10, "dies": BLUE, "b": 20, "fails": RED, **hangs, "c": 30}
    items = [Item(f"{name}.png") for name in colors]
    for item, color in zip(items, colors.values()):
        draw(tmp_path / item.name, color)
    items.insert(2, Item("nowhere.png"))
    guard = Guard(work(folder=tmp_path), seconds=2)
    try:
        rows = rows_of(guard, items)
    finally:
        guard.stop()
    errors = {x["file_name"]: x["error"] for x in rows}
    assert list(errors) == [x.name for x in items]
    assert errors == {
        **dict.fromkeys(["a.png", "b.png", "c.png"]),
        "dies.png": "its process died, signal 9",
        "nowhere.png": "no such file",
        "fails.png": "the detector failed: RuntimeError: no kernel for red",
        **({"hangs.png": "it took more than 2 s"} if hangs else {}),
    }
    assert rows[0] == {
        "file_name": "a.png", "width": 24, "height": 16, "error": None,
        "detections": [{"category_id": 2, "category": "lamp", "bbox": [6.0, 4.0, 6.0, 4.0],
                        "area": 24.0, "score": 0.03922}],
    }  # fmt: skip
    assert rows[1] == {
        "file_name": "dies.png", "width": None, "height": None,
        "error": "its process died, signal 9", "detections": [],
    }  # fmt: skip


def test_another_model_is_refused(tmp_path):
    expected = work(folder=tmp_path).described(Fake())
    guard = Guard(work(Other, tmp_path, header=expected.header))
    with pytest.raises(ValueError, match="model.file other.onnx, not fake.onnx; contract.file"):
        guard([Item("a.png")])


@pytest.mark.slow
def test_a_model_that_cannot_be_opened_ends_the_run(tmp_path, monkeypatch):
    guard = Guard(work(Unopenable, tmp_path))
    with pytest.raises(RuntimeError, match="cannot be opened: its process died, exit code 3"):
        guard([Item("a.png")])
    monkeypatch.setattr(module, "ATTEMPTS", 1)  # for the time it takes
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Guard(work(folder=tmp_path / "nowhere"))([Item("a.png")])


@pytest.mark.slow
def test_a_broken_engine_ends_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_IN_A_ROW", 2)
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    draw(tmp_path / "a.png")
    guard = Guard(work(BrokenEngine, tmp_path))
    with pytest.raises(RuntimeError, match="after 2 pictures in a row: .* CUDA is gone"):
        guard([Item("a.png")] * 3)


def test_stopping_ends_what_is_under_way(tmp_path):
    draw(tmp_path / "a.png")
    guard = Guard(work(Slow, tmp_path))
    threading.Timer(0.5, guard.stop).start()
    begin = time.monotonic()
    with pytest.raises(Stopped):
        guard([Item("a.png")] * 10_000)
    assert time.monotonic() - begin < 30
    with pytest.raises(Stopped):
        guard([Item("a.png")])


def test_rows_of_other_pictures_are_not_taken(tmp_path):
    (shard,) = plan([Item("a.png"), Item("b.png")], 2, "key")
    assert shard.items() == [Item("a.png"), Item("b.png")]
    files = ShardFiles(tmp_path)
    line = functools.partial('{{"file_name": "{}", "error": null, "detections": []}}\n'.format)
    for names in (["a.png"], ["b.png", "a.png"], ["a.png", "b.png", "b.png"]):
        with pytest.raises(ValueError, match="not those of the 2 pictures from number 0 on"):
            files.write(shard, "".join(map(line, names)).encode())
    assert not list(tmp_path.iterdir())
    written = files.write(shard, "".join(map(line, ["a.png", "b.png"])).encode())
    assert files.find([shard]) == {shard.recipe: written} and written.rows == 2
