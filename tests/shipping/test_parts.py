"""Candidates, the record, times in turns, and the noise of AP."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nanodet_d2.export.score import evaluate
from nanodet_d2.runtime import Detector
from nanodet_d2.shipping import candidates as listing
from nanodet_d2.shipping import timing
from nanodet_d2.shipping.candidates import Candidate, default_sizes, list_candidates
from nanodet_d2.shipping.noise import ap_on, drop_deviation, drop_noise, evaluation_of
from nanodet_d2.shipping.record import Record

# -- candidates --------------------------------------------------------------------------------


def test_sizes_around_the_models_own():
    sides = [256, 320, 384, 416, 448, 512, 576, 640]
    assert default_sizes((416, 416), 32) == [(x, x) for x in sides]
    wide = default_sizes((96, 192), 32)
    assert (96, 192) in wide and (128, 256) in wide and (320, 640) in wide
    assert all(h % 32 == w % 32 == 0 for h, w in wide) and wide == sorted(wide)


def test_all_that_can_be_measured_here(monkeypatch):
    monkeypatch.setattr(listing, "_installed", lambda packages: "MNN" not in packages)
    found, left_out = list_candidates([], [(64, 64), (96, 96)], calibrated=True)
    assert found[0].size == (64, 64) and found[-1].size == (96, 96)  # size by size
    kinds = {(x.format, x.precision) for x in found}
    assert {("onnx", "float32"), ("onnx", "int8"), ("openvino", "float16")} <= kinds
    assert ("torchscript", "float32") in kinds and ("torchscript", "int8") not in kinds
    assert len(found) == 2 * len(kinds)
    assert left_out["mnn"] == "MNN, which runs it, is not installed"
    assert "whose speed says nothing" in left_out["tensorrt"]
    found, _ = list_candidates(["onnx"], [(64, 64)], calibrated=False)
    assert [x.name for x in found] == ["onnx float32 64x64"]


def test_nothing_that_can_be_measured_is_said(monkeypatch):
    with pytest.raises(ValueError, match="no format can be measured .*tensorrt: onnxruntime befo"):
        list_candidates(["tensorrt"], [(64, 64)], calibrated=False)
    with pytest.raises(ValueError, match="unknown format onx; known: coreml, "):
        list_candidates(["onx"], [(64, 64)], calibrated=False)


def test_a_candidates_export():
    job = Candidate("openvino", "int8", (64, 96)).job(Path("out"), Path("pictures"))
    assert job.int8 and not job.fp16 and job.calibration == Path("pictures") and job.verify
    job = Candidate("openvino", "float16", (64, 96)).job(Path("out"), Path("pictures"))
    assert job.fp16 and job.calibration is None


# -- the record --------------------------------------------------------------------------------

ABOUT = {"made_of": {"a": [1, 2]}, "scored_on": {"b": 1}, "timed_on": {"c": (3, 4)}}


def write(path: Path) -> None:
    record = Record(path, **ABOUT)
    record.reference_ap = 30.0
    record.entry("x").update(file="x.onnx", bytes=7, ap=29.0, rounds=[[1.0]])
    record.save()


@pytest.mark.parametrize(
    "changed, left, reference",
    [
        ({}, {"file", "bytes", "ap", "rounds"}, 30.0),
        ({"timed_on": {"c": [3, 5]}}, {"file", "bytes", "ap"}, 30.0),
        ({"scored_on": {}}, {"file", "bytes", "rounds"}, None),
        ({"made_of": {"a": [1, 3]}}, set(), None),
    ],
)
def test_what_follows_from_something_else_is_dropped(tmp_path, changed, left, reference):
    write(tmp_path / "ship.json")
    record = Record(tmp_path / "ship.json", **{**ABOUT, **changed})
    assert set(record.entry("x")) == left and record.reference_ap == reference


@pytest.mark.parametrize("text", ["", "{", "[]", '{"about": 1}', '{"entries": {}}'])
def test_a_damaged_record_is_measured_anew(tmp_path, text, caplog):
    (tmp_path / "ship.json").write_text(text)
    record = Record(tmp_path / "ship.json", **ABOUT)
    assert record.entries == {} and "is none of ours" in caplog.text
    record.save()
    assert json.loads((tmp_path / "ship.json").read_text())["entries"] == {}


# -- times -------------------------------------------------------------------------------------


def test_files_take_turns_and_go_on_where_they_were(monkeypatch):
    opened, blocks = [], []

    class Fake:
        def __init__(self, name):
            opened.append(name)

        def __call__(self, image):
            pass

    monkeypatch.setattr(
        timing, "block", lambda call, given, **x: blocks.append(x) or [0.001, 0.002]
    )
    files = {name: (lambda name=name: Fake(name)) for name in "abc"}
    times = {"a": [[9.0]], "b": [], "c": []}
    images = [np.zeros((2, 2, 3), np.uint8)] * 3
    done: list[int] = []
    assert timing.blocks_left(times, 4) == 11
    timing.take_turns(files, images, times, rounds=4, threads=1, done=lambda: done.append(1))
    assert len(done) == 11 and timing.blocks_left(times, 4) == 0
    assert times["a"] == [[9.0], [1.0, 2.0], [1.0, 2.0], [1.0, 2.0]]
    assert sorted(opened[:2]) == ["b", "c"]  # what the first round lacked
    later = [tuple(opened[i : i + 3]) for i in (2, 5, 8)]
    assert all(sorted(x) == ["a", "b", "c"] for x in later) and len(set(later)) > 1
    assert {x["calls"] - x["warm_up"] for x in blocks} == {3}  # each picture counts once


# -- the noise of AP ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def evaluated(small_models, shapes):
    """Metrics and evaluation of a model with random weights on eight pictures: each thing is found
    where it is, or somewhere else."""
    detector = Detector(small_models.file("torchscript"), score_thresh=0.0)
    metrics, evaluator = evaluate(detector, shapes["val"]["json"], shapes["val"]["images"])
    return metrics["bbox"]["AP"], *evaluator.found()


def as_found(coco, *, right: int) -> list[dict]:
    """The ground truth as if found, of each ten so many where they are, the others elsewhere."""
    return [
        {"image_id": x["image_id"], "category_id": x["category_id"], "score": 0.9 - i * 1e-4,
         "bbox": [x["bbox"][0] + (40 if i % 10 >= right else 0), *x["bbox"][1:]]}
        for i, x in enumerate(coco.dataset["annotations"])
    ]  # fmt: skip


def test_it_is_the_ap_of_the_evaluation(evaluated):
    ap, coco, found = evaluated
    whole = np.arange(len(coco.dataset["images"]))
    assert len(found) > 50
    assert ap_on(evaluation_of(coco, found), whole) == pytest.approx(ap, abs=1e-6)
    right = evaluation_of(coco, as_found(coco, right=10))
    assert ap_on(right, whole) == pytest.approx(100)
    assert ap_on(right, np.zeros(8, int)) == pytest.approx(100)  # one picture, eight times


def test_the_noise_of_a_loss(evaluated):
    _, coco, _ = evaluated
    right, half = (evaluation_of(coco, as_found(coco, right=x)) for x in (10, 5))
    assert drop_noise(right, right, draws=10) == 0
    assert drop_noise(half, half, draws=10) == 0  # the same draws for both
    assert 1 < drop_noise(right, half, draws=20) < 60
    assert drop_noise(right, half, draws=20) == 2 * drop_deviation(right, half, draws=20)
