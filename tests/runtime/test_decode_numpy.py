"""The NumPy decoder against hand-computed values and against the model's own decoding."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.ops import clip_boxes_to_image

from nanodet_d2.modeling.head import Predictions, select_detections
from nanodet_d2.runtime import decode_numpy
from nanodet_d2.runtime.decode_numpy import decode_boxes, detect, make_priors, select

LIMITS = dict(score_threshold=0.05, nms_threshold=0.6, max_detections=100)


def test_imports_numpy_alone():
    tree = ast.parse(Path(decode_numpy.__file__).read_text())
    imports = [n for n in ast.walk(tree) if isinstance(n, (ast.Import, ast.ImportFrom))]
    names = {getattr(n, "module", None) or n.names[0].name for n in imports}
    assert names == {"__future__", "numpy"}


def test_priors_go_row_by_row_and_round_sizes_up():
    priors = make_priors(10, 20, [8, 16])
    assert priors.tolist() == [
        [0, 0, 8], [8, 0, 8], [16, 0, 8], [0, 8, 8], [8, 8, 8], [16, 8, 8], [0, 0, 16], [16, 0, 16]
    ]  # fmt: skip


def test_box_by_hand():
    logits = np.full((1, 4, 3), -50.0, dtype=np.float32)
    logits[0, 0, 1] = logits[0, 1, 2] = 50  # one stride to the left, two up
    logits[0, 2, :] = 0  # the mean of 0, 1 and 2 to the right
    logits[0, 3, 0] = 50  # nothing down
    boxes = decode_boxes(logits.reshape(1, 12), np.float32([[40, 40, 8]]), 64, 64)
    assert boxes.tolist() == [[32, 24, 48, 40]]
    clipped = decode_boxes(logits.reshape(1, 12), np.float32([[0, 0, 8]]), 64, 64)
    assert clipped.round(3).tolist() == [[0, 0, 8, 0]]


@pytest.mark.parametrize("classes", [1, 3, 80])
def test_as_the_model_decodes(classes):
    rng = np.random.default_rng(classes)
    height, width, strides, reg_max = 128, 96, (8, 16, 32, 64), 7
    priors = make_priors(height, width, strides)
    raw = rng.normal(0, 2, (len(priors), classes + 32)).astype(np.float32)
    raw[:, :classes] -= 4
    scored = raw.copy()
    scored[:, :classes] = torch.from_numpy(raw[:, :classes]).sigmoid().numpy()
    boxes, scores, labels = detect(scored, strides, reg_max, height, width, **LIMITS)

    found = Predictions.from_raw(
        torch.from_numpy(raw)[None], torch.from_numpy(priors), torch.arange(8.0)
    )
    (expected,) = select_detections(
        torch.from_numpy(scored[None, :, :classes]),
        clip_boxes_to_image(found.boxes, (height, width)),
        [(height, width)],
        score_thresh=0.05,
        nms_thresh=0.6,
        max_detections=100,
    )
    assert len(expected) > 20
    np.testing.assert_allclose(boxes, expected.pred_boxes.tensor, atol=1e-4)
    np.testing.assert_allclose(scores, expected.scores)
    np.testing.assert_array_equal(labels, expected.pred_classes)


def test_only_a_better_box_of_the_same_class_suppresses():
    boxes = np.float32([[0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60]])
    scores = np.float32([[0.9, 0.0], [0.8, 0.7], [0.3, 0.0]])
    found = select(scores, boxes, **LIMITS)
    assert found[1].tolist() == pytest.approx([0.9, 0.7, 0.3])
    assert found[2].tolist() == [0, 1, 0]


def test_nothing_above_the_threshold():
    boxes, scores, labels = select(np.zeros((5, 2)), np.zeros((5, 4)), **LIMITS)
    assert boxes.shape == (0, 4) and scores.shape == labels.shape == (0,)


def test_no_candidate_at_all():
    raw = np.zeros((85, 3 + 32), np.float32)
    boxes, scores, labels = detect(raw, (8, 16, 32, 64), 7, 64, 64, **LIMITS)
    assert boxes.shape == (0, 4) and scores.shape == labels.shape == (0,)


def test_no_more_than_wanted():
    boxes = np.float32([[i * 20, 0, i * 20 + 10, 10] for i in range(9)])
    scores = np.linspace(0.1, 0.9, 9)[:, None]
    found = select(scores, boxes, 0.05, 0.6, 4)
    assert found[1].tolist() == pytest.approx([0.9, 0.8, 0.7, 0.6])


def thousands_of_classes() -> tuple[np.ndarray, np.ndarray]:
    """Scores (P, 3000) and boxes (P, 4): in each of 300 classes a pair of IoU 0.59 or 0.61.

    Boxes of 10 px side by side: shifted by x, their IoU is (10 - x) / (10 + x), whatever the class.
    Every pair lies elsewhere, at positions that need their bits.
    """
    rng = np.random.default_rng(0)
    scores, boxes = np.zeros((600, 3000), np.float32), np.zeros((600, 4), np.float32)
    for pair, label in enumerate(rng.permutation(3000)[:300]):
        iou = 0.61 if pair % 2 else 0.59
        shift = 10 * (1 - iou) / (1 + iou)
        x, y = rng.uniform(0, 400, 2)
        boxes[2 * pair], boxes[2 * pair + 1] = (
            (x, y, x + 10, y + 10),
            (x + shift, y, x + shift + 10, y + 10),
        )
        scores[2 * pair : 2 * pair + 2, label] = 0.9 - pair / 1000, 0.5 - pair / 1000
    return scores, boxes


def test_thousands_of_classes_are_told_apart_exactly():
    scores, boxes = thousands_of_classes()
    whole = np.nonzero([i % 2 == 0 or (i // 2) % 2 == 0 for i in range(600)])[0]  # all but 150
    order = whole[np.argsort(-scores[whole].max(axis=1), kind="stable")]
    limits = dict(score_thresh=0.05, nms_thresh=0.6, max_detections=600)
    (found,) = select_detections(
        torch.from_numpy(scores)[None], torch.from_numpy(boxes)[None], [(416, 416)], **limits
    )
    assert len(found) == 450 and found.scores.dtype == torch.float32
    np.testing.assert_array_equal(found.pred_boxes.tensor.numpy(), boxes[order])
    np.testing.assert_array_equal(found.pred_classes.numpy(), scores[order].argmax(axis=1))

    by_numpy = select(scores, boxes, 0.05, 0.6, 600)
    np.testing.assert_array_equal(by_numpy[0], boxes[order])
    np.testing.assert_array_equal(by_numpy[2], found.pred_classes.numpy())

    (none,) = select_detections(torch.zeros(1, 5, 3000), torch.zeros(1, 5, 4), [(9, 9)], **limits)
    assert len(none) == 0


def test_the_end2end_graph_tells_thousands_of_classes_apart_exactly():
    parser, onnxruntime = map(pytest.importorskip, ("onnx.parser", "onnxruntime"))
    from nanodet_d2.export.end2end import AFTER, STRETCHED_BACK

    scores, boxes = thousands_of_classes()
    limits = dict(max_detections=600, nms_threshold=0.6, score_threshold=0.05)
    back = STRETCHED_BACK.format(height=416, width=416)
    text = AFTER.format(ir_version=10, opset=17, place="", back=back, **limits)
    model = parser.parse_model(text)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    inputs = {"all_boxes": boxes[None], "all_scores": scores[None], "size": np.int64([416, 416])}
    found = session.run(None, inputs)
    for one, other in zip(found, select(scores, boxes, 0.05, 0.6, 600)):
        np.testing.assert_array_equal(one, other)
