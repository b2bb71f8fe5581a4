"""NMS by voting: what it does by hand, and that everything which can do it does the same."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from nanodet_d2.data.shapes import draw_picture
from nanodet_d2.export.job import Job, check_nms
from nanodet_d2.modeling.head import select_detections
from nanodet_d2.predictor import Detector
from nanodet_d2.runtime import decode_numpy
from nanodet_d2.runtime.decode import find
from nanodet_d2.runtime.metadata import ExportMetadata
from tests.runtime.test_decode import describe

LIMITS = dict(score_threshold=0.05, nms_threshold=0.6, max_detections=100)


def slowly(
    scores, boxes, *, score_threshold, nms_threshold, max_detections, vote_threshold, vote_power
):
    """The rule word by word, box by box, in Python's numbers."""
    candidates = [
        (float(scores[p, c]), p, c)
        for p in range(len(boxes))
        for c in range(scores.shape[1])
        if scores[p, c] > score_threshold
    ]
    candidates.sort(key=lambda one: -one[0])  # stable: of equal ones the first
    corners = boxes.astype(np.float64).tolist()

    def iou(a, b):
        width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        overlap = max(width, 0.0) * max(height, 0.0)
        union = sum((x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)) - overlap
        return overlap / union if union > 0 else 0.0

    kept = []  # (score, prior, class), and those that belong to it
    for one in candidates:
        if len(kept) == max_detections:
            break
        for (_, prior, label), own in kept:
            if label == one[2] and iou(corners[prior], corners[one[1]]) > nms_threshold:
                own.append(one)
                break
        else:
            kept.append((one, []))
    found = []
    for best, own in kept:
        near = [x for x in own if iou(corners[best[1]], corners[x[1]]) > vote_threshold]
        votes = [(x[0] ** vote_power, corners[x[1]]) for x in [best, *near]]
        total = sum(weight for weight, _ in votes)
        box = [sum(weight * corner[i] for weight, corner in votes) / total for i in range(4)]
        found.append((box, best[0], best[2]))
    return found


def crowd(seed: int, classes: int, count: int, *, steps: int = 0, empty: float = 0.0):
    """Scores (P, C) and boxes (P, 4) in heaps around a few places, with few scores above 0.05.

    Args:
        steps: scores are multiples of one in so many, and many are equal; any score if 0.
        empty: share of the boxes that are empty.
    """
    rng = np.random.default_rng(seed)
    places = rng.uniform(10, 150, (max(count // 12, 1), 4))
    places[:, 2:] = places[:, :2] + rng.uniform(8, 60, (len(places), 2))
    boxes = places[rng.integers(0, len(places), count)] + rng.normal(0, 2.5, (count, 4))
    boxes = np.clip(boxes, 0, 200).astype(np.float32)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    some = rng.random(count) < empty
    boxes[some, 2:] = boxes[some, :2]
    scores = (rng.random((count, classes)) ** 4).astype(np.float32)
    if steps:
        scores = np.rint(scores * steps) / np.float32(steps)
    return scores, boxes


def by_torch(scores, boxes, x):
    (found,) = select_detections(
        torch.from_numpy(scores)[None],
        torch.from_numpy(boxes)[None],
        [(200, 200)],
        score_thresh=x.score_threshold,
        nms_thresh=x.nms_threshold,
        max_detections=x.max_detections,
        nms="voting",
        vote_thresh=x.vote_threshold,
        vote_power=x.vote_power,
    )
    return found.pred_boxes.tensor.numpy(), found.scores.numpy(), found.pred_classes.numpy()


def all_three(scores, boxes, x):
    limits = (x.score_threshold, x.nms_threshold, x.max_detections, x.vote_above, x.vote_power)
    return {
        "plain to port": decode_numpy.select(scores, boxes, *limits),
        "fast": find([boxes, scores], x),
        "torch": by_torch(scores, boxes, x),
    }


def assert_same(scores, boxes, **changed) -> int:
    """All give the same as the slow one, in the same order; returns how many boxes moved."""
    x = describe("decoded", scores.shape[1], nms="voting", **changed)
    limits = {k: getattr(x, k) for k in (*LIMITS, "vote_threshold", "vote_power")}
    expected = slowly(scores, boxes, **limits)
    for name, found in all_three(scores, boxes, x).items():
        assert found[0].shape == (len(expected), 4) and found[0].dtype == np.float32, name
        if expected:
            b, s, c = zip(*expected)
            np.testing.assert_allclose(found[0], b, atol=1e-3, err_msg=name)
            np.testing.assert_array_equal(found[1], np.float32(s), err_msg=name)
            np.testing.assert_array_equal(found[2], c, err_msg=name)
    unmoved = find([boxes, scores], dataclasses.replace(x, nms="plain"))[0]
    moved = np.array([b for b, _, _ in expected]).reshape(-1, 4)
    return int((np.abs(unmoved - moved) > 1e-3).any(axis=1).sum())


@pytest.mark.parametrize("limit", [1, 7, 30, 10**6])
@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("seed", range(6))
def test_everything_does_the_same(seed, classes, limit):
    moved = assert_same(*crowd(seed, classes, 150), max_detections=limit)
    assert moved > 0 or limit <= 7  # then few come before the last one that is kept


@pytest.mark.parametrize(
    "thresholds", [(0.6, 0.5), (0.6, 0.6), (0.3, 0.8), (0.0, 0.0), (0.9, 0.65), (0.5, 1.0)]
)
def test_any_pair_of_thresholds(thresholds):
    nms, vote = thresholds
    moved = assert_same(*crowd(0, 2, 120), nms_threshold=nms, vote_threshold=vote)
    assert (moved > 0) == (vote < 1)


@pytest.mark.parametrize("power", [0, 0.5, 1, 2, 16, 100])
def test_any_power(power):
    assert assert_same(*crowd(2, 2, 120), vote_power=power) > 0


@pytest.mark.parametrize("steps, empty", [(4, 0.0), (20, 0.2), (0, 1.0)])
def test_ties_and_empty_boxes(steps, empty):
    """torch's own order of equal scores, in many boxes, is any: here are few enough."""
    for limit in (5, 40):
        assert_same(*crowd(1, 2, 100, steps=steps, empty=empty), max_detections=limit)


def test_many_classes():
    """Beyond those that torch tells apart by moving boxes."""
    scores, boxes = crowd(3, 1, 150)
    many = np.zeros((150, 3000), np.float32)
    many[:, 7], many[:, 2999] = scores[:, 0], scores[::-1, 0]
    assert assert_same(many, boxes) > 0


def test_no_candidate():
    assert assert_same(np.zeros((5, 2), np.float32), np.ones((5, 4), np.float32)) == 0


def test_by_hand():
    boxes = np.float32([
        [0, 0, 10, 10],
        [0, 0, 10, 8],  # IoU 0.8: votes
        [0, 0, 10, 6.3],  # 0.63: suppressed, does not vote
        [0, 0, 10, 4],  # 0.4: kept; of its IoU with the second, 0.5, and the third, 0.63, nothing
        [0, 0, 10, 9],  # 0.9, but in another class: alone
        [30, 30, 40, 40],
    ])  # fmt: skip
    scores = np.zeros((6, 2), np.float32)
    scores[[0, 1, 2, 3, 5], 0] = 0.75, 0.5, 0.25, 0.25, 0.125
    scores[4, 1] = 0.5
    lower = {1: 11.5 / 1.25, 2: (5.625 + 2) / 0.8125, 4: (81 * 10 + 16 * 8) / 97}
    for power, edge in lower.items():
        x = describe("decoded", 2, nms="voting", vote_power=power)
        for name, (found, confidence, label) in all_three(scores, boxes, x).items():
            expected = [[0, 0, 10, edge], [0, 0, 10, 9], [0, 0, 10, 4], [30, 30, 40, 40]]
            np.testing.assert_allclose(found, expected, atol=1e-6, err_msg=name)
            assert confidence.tolist() == [0.75, 0.5, 0.25, 0.125]
            assert label.tolist() == [0, 1, 0, 0]


def test_the_shipped_rule(small_models):
    """What the README's figures are of; a file from before the power was there has none."""
    x = small_models.loaded().metadata
    assert (x.nms, x.vote_threshold, x.vote_power) == ("plain", 0.65, 8.0)
    content = json.loads(x.to_json()) | {"nms": "voting"}
    del content["vote_power"]
    old = ExportMetadata.from_json(json.dumps(content), "old.onnx")
    assert (old.vote_above, old.vote_power) == (0.65, 1.0)


def test_what_comes_after_the_last_kept_one_does_not_vote():
    boxes = np.float32([[0, 0, 10, 10], [30, 30, 40, 40], [0, 0, 10, 8]])
    scores = np.float32([[0.75], [0.6], [0.5]])
    for limit, bottom in ((1, 10.0), (2, 10.0), (3, 9.2)):
        x = describe("decoded", 1, nms="voting", vote_power=1, max_detections=limit)
        for name, (found, *_) in all_three(scores, boxes, x).items():
            assert found[0].tolist() == pytest.approx([0, 0, 10, bottom]), (name, limit)


def test_what_nobody_votes_for_stays_to_the_last_bit():
    scores, _ = crowd(0, 3, 40)
    boxes = np.float32([[i * 9.7, 0.1, i * 9.7 + 7.3, 5.3] for i in range(40)])
    x = describe("decoded", 3, nms="voting")
    plain = find([boxes, scores], dataclasses.replace(x, nms="plain"))
    for found in all_three(scores, boxes, x).values():
        np.testing.assert_array_equal(found[0], plain[0])


def test_endless_boxes_do_not_cost_the_others():
    boxes = np.float32([[0, 0, np.inf, 9], [0, 0, 10, 10], [0, 0, 10, 8], [20, 20, 30, 30]])
    scores = np.float32([[0.9], [0.75], [0.5], [0.4]])
    with np.errstate(invalid="ignore"):
        found = find([boxes, scores], describe("decoded", 1, nms="voting", vote_power=1))[0]
    assert found[1:].tolist() == [[0, 0, 10, pytest.approx(9.2)], [20, 20, 30, 30]]


# -- who asks for it ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return draw_picture(0, "val", 0, 120)[0]


@pytest.mark.parametrize("format", ["torchscript", "onnx", "ncnn"])
def test_a_detector_is_asked_for_it(small_models, picture, format):
    path = small_models.file(format)
    plain, voting = Detector(path)(picture), Detector(path, nms="voting")(picture)
    np.testing.assert_array_equal(plain.confidence, voting.confidence)
    np.testing.assert_array_equal(plain.class_id, voting.class_id)
    assert (np.abs(plain.xyxy - voting.xyxy) > 0.1).any()
    expected = Detector(small_models.loaded(), nms="voting")(picture)
    np.testing.assert_allclose(voting.xyxy, expected.xyxy, atol=0.05)


def test_a_model_that_votes_is_exported_so(small_models, picture, tmp_path):
    from nanodet_d2.export.writer import export

    options = ("model.nms=voting", "model.vote_thresh=0.7", "model.vote_power=2")
    loaded = small_models.loaded(overrides=options)
    assert (loaded.metadata.nms, loaded.metadata.vote_above) == ("voting", 0.7)
    (written,) = export(loaded, Job(("torchscript",), tmp_path))  # compared with PyTorch's boxes
    (detections,) = [x for x in written.differences if x.output == "detections"]
    assert detections.value == 0 and detections.compared > 10
    detector = Detector(written.path)
    found = detector.metadata
    assert (found.nms, found.vote_threshold, found.vote_power) == ("voting", 0.7, 2)
    moved = np.abs(detector(picture).xyxy - Detector(written.path, nms="plain")(picture).xyxy)
    assert (moved > 0.1).any()


def test_it_is_refused_where_nms_is_in_the_graph(small_models, tmp_path):
    with pytest.raises(ValueError, match="kind end2end has its NMS in the graph"):
        check_nms(Job(("onnx",), tmp_path, kind="end2end"), "voting")
    with pytest.raises(ValueError, match="format tensorrt has its NMS in the graph"):
        check_nms(Job(("onnx", "tensorrt"), tmp_path), "voting")
    check_nms(Job(("onnx",), tmp_path, kind="end2end"), "plain")
    check_nms(Job(("onnx",), tmp_path), "voting")
    path = small_models.file("onnx", kind="end2end")
    with pytest.raises(ValueError, match="has its NMS in the graph, plain, found nms 'voting'"):
        Detector(path, nms="voting")
    assert Detector(path, nms="plain").metadata.nms == "plain"
    with pytest.raises(ValueError, match="nms 'soft'; allowed: plain, voting"):
        Detector(small_models.file("torchscript"), nms="soft")


def test_an_unknown_one_is_refused_by_the_model(build_model):
    with pytest.raises(ValueError, match="nms 'soft'; allowed: plain, voting"):
        build_model(nms="soft")
