"""The fast path finds what the plain one does, whatever a network gives."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from nanodet_d2.data.shapes import draw_picture
from nanodet_d2.runtime import Detector, decode_numpy
from nanodet_d2.runtime.backends import open_backend
from nanodet_d2.runtime.decode import find
from nanodet_d2.runtime.images import load_image
from nanodet_d2.runtime.metadata import ExportMetadata, InputDescription
from nanodet_d2.runtime.preprocess import normalize, stretch

pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, example, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

HEIGHT, WIDTH, STRIDES, REG_MAX = 64, 96, (8, 16, 32, 64), 7
PRIORS = decode_numpy.make_priors(HEIGHT, WIDTH, STRIDES)
NEAR = 1e-6  # of IoUs: the plain path has them in float32, OpenCV in float64


def describe(kind: str, classes: int, **limits) -> ExportMetadata:
    x = InputDescription("data", HEIGHT, WIDTH, False, "BGR", (0.0,) * 3, (1.0,) * 3)
    facts = dict(score_threshold=0.05, nms_threshold=0.6, max_detections=100)
    return ExportMetadata(
        name="x",
        kind=kind,
        class_names=tuple(map(str, range(classes))),
        strides=STRIDES,
        reg_max=REG_MAX,
        input=x,
        outputs=(),
        versions={},
        checkpoint_sha256="",
        **{**facts, **limits},
    )


def plain(outputs: list[np.ndarray], x: ExportMetadata):
    limits = (x.score_threshold, x.nms_threshold, x.max_detections)
    if x.kind == "decoded":
        boxes, scores = outputs
        return decode_numpy.select(scores, boxes, *limits)
    return decode_numpy.detect(
        outputs[0], x.strides, x.reg_max, x.input.height, x.input.width, *limits
    )


def as_decoded(raw: np.ndarray, classes: int) -> list[np.ndarray]:
    return [decode_numpy.decode_boxes(raw[:, classes:], PRIORS, HEIGHT, WIDTH), raw[:, :classes]]


def is_close(outputs: list[np.ndarray], x: ExportMetadata) -> bool:
    """Whether two candidates of a class have an IoU that a rounding moves over the threshold."""
    boxes, scores = outputs if x.kind == "decoded" else as_decoded(*outputs, len(x.class_names))
    priors, classes = np.nonzero(scores > x.score_threshold)
    for label in np.unique(classes):
        own = boxes[priors[classes == label]].astype(np.float64)
        ious = np.stack([decode_numpy.iou_with(box, own) for box in own])
        if (np.abs(ious - x.nms_threshold) < NEAR).any():
            return True
    return False


def assert_same(outputs: list[np.ndarray], x: ExportMetadata) -> int:
    """Same detections, bit by bit; returns their number."""
    expected, found = plain(outputs, x), find(outputs, x)
    for a, b in zip(expected, found):
        same = a.shape == b.shape and a.dtype == b.dtype and np.array_equal(a, b, equal_nan=True)
        assert same or is_close(outputs, x)
    return len(found[0])


def any_raw(seed: int, classes: int, candidates: int, *, steps: int, empty: float) -> np.ndarray:
    """A raw output (P, C + 4 * (R + 1)) with about so many scores above 0.05.

    Args:
        steps: scores are multiples of one in so many, and many are equal; any score if 0.
        empty: share of priors with an empty box.
    """
    rng = np.random.default_rng(seed)
    scores = np.zeros(len(PRIORS) * classes, np.float32)
    some = rng.integers(0, len(scores), candidates)
    scores[some] = rng.uniform(0.05, 1, candidates)
    if steps:
        scores = np.rint(scores * steps) / np.float32(steps)
    logits = rng.normal(0, 3, (len(PRIORS), 4, REG_MAX + 1))
    logits[rng.random(len(PRIORS)) < empty, :, 0] = 1000  # all distances are 0
    return np.hstack([scores.reshape(-1, classes), logits.reshape(len(PRIORS), -1)]).astype("f4")


@settings(
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(["raw", "decoded"]),
    classes=st.sampled_from([1, 2, 80, 3000]),
    candidates=st.sampled_from([0, 1, 7, 300, 4000]),
    limit=st.sampled_from([1, 5, 100, 10**6]),
    iou=st.sampled_from([0.0, 0.3, 0.6, 0.95, 1.0]),
    steps=st.sampled_from([0, 0, 3, 50]),
    empty=st.sampled_from([0.0, 0.0, 0.1, 1.0]),
)
@example(0, "raw", 3000, 4000, 100, 0.6, 0, 0.0)
@example(0, "raw", 80, 4000, 100, 0.6, 50, 0.0)
@example(0, "decoded", 1, 4000, 10**6, 0.6, 3, 0.1)
def test_any_output(seed, kind, classes, candidates, limit, iou, steps, empty):
    raw = any_raw(seed, classes, candidates, steps=steps, empty=empty)
    outputs = [raw] if kind == "raw" else as_decoded(raw, classes)
    x = describe(kind, classes, max_detections=limit, nms_threshold=iou)
    number = assert_same(outputs, x)
    assert number <= limit and bool(number) == bool((raw[:, :classes] > 0.05).any())


@pytest.mark.parametrize("limit, number", [(20, 20), (100, 31)])
def test_where_most_is_suppressed_the_rest_is_looked_at(limit, number):
    """The limit is reached late, or not at all."""
    apart = np.float32([[20 * i, 0, 20 * i + 10, 10] for i in range(1, 31)])
    boxes = np.concatenate([np.tile(np.float32([[0, 0, 10, 10]]), (400, 1)), apart])
    scores = np.linspace(0.9, 0.1, len(boxes), dtype=np.float32)[:, None]
    x = describe("decoded", 1, max_detections=limit)
    assert assert_same([boxes, scores], x) == number
    assert find([boxes, scores], x)[0][1:].tolist() == apart[: number - 1].tolist()


@pytest.mark.parametrize("kind", ["raw", "decoded"])
def test_ties_are_kept_in_the_order_of_priors_and_classes(kind):
    raw = any_raw(0, 3, 0, steps=0, empty=0.0)
    raw[:, :3] = 0.5
    outputs = [raw] if kind == "raw" else as_decoded(raw, 3)
    x = describe(kind, 3, max_detections=7, nms_threshold=1.0)
    assert assert_same(outputs, x) == 7
    assert find(outputs, x)[2].tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_no_candidate():
    boxes, scores, classes = find([np.zeros((len(PRIORS), 5 + 32), np.float32)], describe("raw", 5))
    assert boxes.shape == (0, 4) and scores.shape == classes.shape == (0,)
    assert classes.dtype == np.int64


def test_boxes_beyond_the_image_stay_in_their_class():
    """Of files of other origin, whose boxes nobody has clipped."""
    boxes = np.float32([[-200, -200, -10, -10], [-199, -200, -10, -10], [-200, -200, -10, -11]])
    scores = np.float32([[0.9, 0.0], [0.8, 0.0], [0.0, 0.7]])
    x = describe("decoded", 2)
    assert assert_same([boxes, scores], x) == 2
    assert find([boxes, scores], x)[2].tolist() == [0, 1]


@pytest.mark.parametrize("last", [30, np.inf, np.nan])
def test_endless_boxes_do_not_cost_the_others(last):
    boxes = np.float32([[0, 0, np.inf, 9], [0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, last]])
    scores = np.float32([[0.9], [0.8], [0.7], [0.6]])
    with np.errstate(invalid="ignore"):
        assert assert_same([boxes, scores], describe("decoded", 1)) == 3


@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.5])
@pytest.mark.parametrize("kind", ["raw", "decoded"])
def test_outputs_of_a_network(small_models, kind, threshold):
    detector = Detector(small_models.file("onnx", kind=kind), score_thresh=threshold)
    image = draw_picture(0, "val", 0, 120)[0]
    outputs = [x[0] for x in detector.raw(image).values()]
    for limit in (10, 100, 1000):
        x = dataclasses.replace(detector.metadata, max_detections=limit)
        assert assert_same(outputs, x) or threshold == 0.5


def test_outputs_of_the_official_network(shared):
    pytest.importorskip("ncnn")
    x = describe("raw", 80)
    facts = dict(height=416, width=416, mean=(103.53, 116.28, 123.675), std=(57.375, 57.12, 58.395))
    x = dataclasses.replace(x, input=dataclasses.replace(x.input, **facts))
    backend = open_backend(shared / "weights" / "nanodet-plus-m_416.param", num_threads=1)
    for picture in sorted((shared / "coco_tiny" / "val2017").glob("*.jpg"))[:3]:
        (raw,) = backend(normalize(stretch(load_image(picture), 416, 416), x.input)[None])
        for threshold in (0.01, 0.05):
            assert assert_same([raw[0]], dataclasses.replace(x, score_threshold=threshold)) > 5
