"""Single values of the reference implementation (RangiLyu/nanodet 1.0), computed by running it."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes, Instances
from torchvision.ops import clip_boxes_to_image

from nanodet_d2.data.warp import WarpTransform, output_size, warp_matrix
from nanodet_d2.engine import ModelEMA
from nanodet_d2.modeling import NanoDetPlusHead
from nanodet_d2.modeling.head import GroundTruth, select_detections
from nanodet_d2.modeling.head.box_coding import grid_priors

STRIDES = (8, 16, 32, 64)


def make_head(num_classes: int) -> NanoDetPlusHead:
    shapes = {f"p{i + 3}": ShapeSpec(channels=8, stride=s) for i, s in enumerate(STRIDES)}
    return NanoDetPlusHead(shapes, num_classes=num_classes)


def make_priors(size: int) -> torch.Tensor:
    sizes = [(-(-size // s), -(-size // s)) for s in STRIDES]
    return grid_priors(sizes, STRIDES, torch.device("cpu"))


def wave(amplitude: float, per_prior: float, per_channel: float, shift: float, count: int):
    n = torch.arange(count, dtype=torch.float64)[None, :, None]
    c = torch.arange(42, dtype=torch.float64)
    b = torch.arange(3, dtype=torch.float64)[:, None, None]
    raw = amplitude * torch.sin(per_prior * n + per_channel * c + b + shift)
    raw[..., :10] -= 3
    return raw.float().requires_grad_()


@pytest.fixture
def loss_case():
    boxes = [
        [[20, 30, 150, 200], [100, 90, 300, 250], [200, 40, 216, 60]],
        [[5, 5, 310, 315], [64, 64, 128, 128]],
        [],
    ]
    classes = [[3, 7, 1], [0, 9], []]
    instances = [
        Instances(
            (320, 320),
            gt_boxes=Boxes(torch.tensor(b, dtype=torch.float32).reshape(-1, 4)),
            gt_classes=torch.tensor(c, dtype=torch.int64),
        )
        for b, c in zip(boxes, classes)
    ]
    main = wave(2, 0.1, 0.7, 0.0, 2125)
    aux = wave(2, 0.13, 0.45, 0.5, 2125)
    return make_head(10), main, aux, make_priors(320), GroundTruth.from_instances(instances)


def test_losses_with_auxiliary_branch(loss_case):
    head, main, aux, priors, truth = loss_case
    losses = head.losses(main, priors, truth, aux)
    expected = {
        "loss_qfl": 12.001764,
        "loss_bbox": 1.370765,
        "loss_dfl": 0.660961,
        "aux_loss_qfl": 11.897645,
        "aux_loss_bbox": 1.049065,
        "aux_loss_dfl": 0.472762,
    }
    assert {k: float(v) for k, v in losses.items()} == pytest.approx(expected, rel=1e-5)
    sum(losses.values()).backward()
    assert float(main.grad.abs().sum()) == pytest.approx(29.0528, rel=1e-5)
    assert float(aux.grad.abs().sum()) == pytest.approx(29.4265, rel=1e-5)


def test_losses_without_auxiliary_branch(loss_case):
    head, main, _, priors, truth = loss_case
    losses = head.losses(main, priors, truth)
    expected = {"loss_qfl": 10.021207, "loss_bbox": 0.888088, "loss_dfl": 0.481396}
    assert {k: float(v) for k, v in losses.items()} == pytest.approx(expected, rel=1e-5)


def test_assigned_priors(loss_case):
    head, _, aux, priors, truth = loss_case
    guide = head.decode(aux.detach(), priors)
    target = head.assigner(guide.logits, guide.boxes, priors, truth)
    expected = [
        {
            3: [1646, 1744, 1745, 1746, 1747, 1748],
            7: [2056, 2062, 2063, 2064, 2065, 2066],
            1: [266],
        },
        {0: [2024, 2025, 2026, 2027, 2028], 9: [332, 333, 532, 533, 534]},
        {},
    ]
    for labels, image in zip(target.labels, expected):
        found = {c: (labels == c).nonzero().flatten().tolist() for c in range(10)}
        assert {c: priors for c, priors in found.items() if priors} == image
    scores = target.scores[0, [1646, 1744, 266, 2056]]
    np.testing.assert_allclose(scores, [0.4419, 0.4346, 0.2061, 0.4783], atol=5e-5)


def test_post_processing():
    priors = make_priors(64)
    n = torch.arange(85, dtype=torch.float64)[:, None]
    raw = 3 * torch.sin(0.9 * n + 1.7 * torch.arange(42, dtype=torch.float64))
    raw[:, :10] -= 3.5
    found = make_head(10).decode(raw.float()[None], priors)
    scores, boxes = found.logits.sigmoid(), clip_boxes_to_image(found.boxes, (64, 64))
    assert int((scores > 0.05).sum()) == 376
    (result,) = select_detections(
        scores, boxes, [(64, 64)], score_thresh=0.05, nms_thresh=0.6, max_detections=100
    )
    assert len(result) == 89
    # The image is 128 x 80 (width x height), stretched to 64 x 64.
    best = result.pred_boxes.tensor * torch.tensor([2.0, 1.25, 2.0, 1.25])
    expected = {
        (4, 0.37754): (0, 0, 85.787, 80),
        (3, 0.37754): (0, 0, 68.670, 72.333),
        (3, 0.37748): (68.718, 0, 128, 72.140),
        (4, 0.37741): (0, 44.941, 58.851, 80),
        (3, 0.37705): (0, 0, 100.674, 52.707),
        (2, 0.37679): (10.801, 0, 128, 31.909),
    }
    classes, found_scores = result.pred_classes[:6].tolist(), result.scores[:6].tolist()
    mine = {(c, round(s, 5)): b for c, s, b in zip(classes, found_scores, best[:6].numpy())}
    assert set(mine) == set(expected)
    for key, box in expected.items():
        np.testing.assert_allclose(mine[key], box, atol=2e-3)


@pytest.mark.parametrize(
    "keep_ratio, size, rows, boxes",
    [
        (
            False,
            (320, 320),
            [[-0.676921, 0, 306.057157], [0, 1.254241, 61.729556]],
            [[170.6729, 111.8992, 285.7495, 262.4081], [35.2886, 312.5777, 48.8271, 320]],
        ),
        (
            True,
            (192, 320),
            [[-0.676921, 0, 306.057157], [0, 0.752544, 37.037734]],
            [[170.6729, 67.1395, 285.7495, 157.4448], [35.2886, 187.5466, 48.8271, 192]],
        ),
    ],
)
def test_training_warp(keep_ratio, size, rows, boxes):
    """The draws of the reference's pipeline after ``random.seed(0)``, in its order."""
    generator = random.Random(0)
    draw = generator.uniform
    perspective = (draw(0, 0), draw(0, 0))
    scale = draw(0.6, 1.4)
    stretch = (draw(0.8, 1.2), draw(0.8, 1.2))
    rotation = draw(0, 0)
    shear = (draw(0, 0), draw(0, 0))
    flip = generator.random() < 0.5
    translate = (draw(0.3, 0.7), draw(0.3, 0.7))

    assert output_size(240, 400, (320, 320), keep_ratio=keep_ratio) == size
    matrix = warp_matrix(
        (240, 400),
        size,
        keep_ratio=keep_ratio,
        perspective=perspective,
        scale=scale,
        stretch=stretch,
        rotation=rotation,
        shear=shear,
        flip=flip,
        translate=translate,
    )
    np.testing.assert_allclose(matrix[:2], rows, atol=1e-6)
    warp = WarpTransform(matrix, *size)
    found = Boxes(torch.from_numpy(warp.apply_box([[30, 40, 200, 160], [380, 200, 400, 240]])))
    found.clip(size)
    np.testing.assert_allclose(found.tensor.numpy(), boxes, atol=1e-4)


def test_average_weights():
    ema = ModelEMA(torch.nn.Linear(1, 1), decay=0.9998)
    expected = {
        1: 0.99900,
        10: 0.99452,
        100: 0.95076,
        1000: 0.60631,
        2000: 0.36782,
        5000: 0.08223,
        10000: 0.00693,
        20000: 2.454e-4,
    }
    found = {step: ema.new_value_weight(step) for step in expected}
    assert found == pytest.approx(expected, rel=1e-3)
