"""ATSS in batches against the per-image oracle and hand-made cases; who takes which assigner."""

from __future__ import annotations

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes, Instances

from nanodet_d2.modeling import (
    ATSSAssigner,
    DynamicSoftLabelAssigner,
    GFLHead,
    NanoDetHead,
    NanoDetPlusHead,
    SimpleConvHead,
)
from nanodet_d2.modeling.head import GroundTruth
from nanodet_d2.modeling.head.box_coding import grid_priors
from nanodet_d2.modeling.head.losses import aligned_iou
from tests import oracle

CLASSES = 5
CPU = torch.device("cpu")
SIZES = [(16, 16), (8, 8), (4, 4)]
STRIDES = [8, 16, 32]
PRIORS = grid_priors(SIZES, STRIDES, CPU, offset=0.5)
SHAPES = {f"p{i}": ShapeSpec(channels=32, stride=2**i) for i in (3, 4, 5)}


def random_truth(seed: int, counts: list[int], *, whole: bool = False):
    generator = torch.Generator().manual_seed(seed)
    truth = []
    for count in counts:
        size = torch.rand(count, 2, generator=generator) * 90 + 2
        low = torch.rand(count, 2, generator=generator) * (128 - size)
        boxes = torch.cat([low, low + size], 1)
        classes = torch.randint(CLASSES, (count,), generator=generator)
        truth.append((boxes.round() if whole else boxes, classes))
    return truth


def batched(truth, ignored=None) -> GroundTruth:
    instances = [
        Instances((128, 128), gt_boxes=Boxes(boxes), gt_classes=classes) for boxes, classes in truth
    ]
    return GroundTruth.from_instances(instances, ignored)


def assign(assigner, truth, priors=PRIORS, ignored=None):
    """The assignment, and predictions: each prior's box is its cell."""
    half = priors[:, 2:] / 2
    boxes = torch.cat([priors[:, :2] - half, priors[:, :2] + half], dim=1)
    boxes = boxes.expand(len(truth), -1, -1)
    logits = torch.zeros(len(truth), len(priors), CLASSES)
    return assigner(logits, boxes, priors, batched(truth, ignored)), boxes


@pytest.mark.parametrize("whole", [False, True], ids=["any box", "whole pixels, and so ties"])
@pytest.mark.parametrize("offset", [0.0, 0.5])
@pytest.mark.parametrize("counts", [[3, 0, 7], [1], [0, 0], [25, 2]])
@pytest.mark.parametrize("options", [{}, {"topk": 3, "anchor_scale": 8.0}])
def test_labels_equal_the_oracle(counts, offset, options, whole):
    priors = grid_priors(SIZES, STRIDES, CPU, offset=offset)
    for seed in range(6):
        truth = random_truth(seed, counts, whole=whole)
        found, predicted = assign(ATSSAssigner(**options), truth, priors)
        for i, (boxes, classes) in enumerate(truth):
            labels, owner = oracle.assign_atss(priors, boxes, classes, CLASSES, **options)
            assert torch.equal(found.labels[i], labels)
            positive = owner >= 0
            assert torch.equal(found.boxes[i, positive], boxes[owner[positive]])
            scores = aligned_iou(predicted[i, positive], boxes[owner[positive]])
            torch.testing.assert_close(found.scores[i, positive], scores)
            assert not found.scores[i, ~positive].any()
            assert set(positive.nonzero().flatten().tolist()) <= set(found.slots[i].tolist())
        assert bool((found.weights == 1).all())


def test_by_hand():
    """One level of 3 x 3 cells; all are candidates, their anchors are cells of 8 px."""
    priors = grid_priors([(3, 3)], [8], CPU, offset=0.5)
    boxes = torch.tensor([[6.0, 6.0, 18.0, 18.0]])
    # IoU: middle 64 / 144 = 0.444; four at the sides 16 / 192 = 0.083; corners 4 / 204 = 0.0196.
    # Mean 0.095, deviation (of 9 - 1) 0.135: only the middle is above 0.23.
    found, _ = assign(ATSSAssigner(anchor_scale=1.0), [(boxes, torch.tensor([2]))], priors)
    expected = torch.full((9,), CLASSES)
    expected[4] = 2
    assert torch.equal(found.labels[0], expected)
    assert float(found.scores[0, 4]) == pytest.approx(64 / 144)


def test_a_prior_of_two_goes_to_the_larger_overlap():
    priors = grid_priors([(3, 3)], [8], CPU, offset=0.5)
    boxes = torch.tensor([[6.0, 6.0, 18.0, 18.0], [8.0, 8.0, 16.0, 16.0]])
    assigner = ATSSAssigner(anchor_scale=1.0)
    for i in (0, 1):
        alone, _ = assign(assigner, [(boxes[[i]], torch.tensor([i]))], priors)
        assert int(alone.labels[0, 4]) == i
    both, _ = assign(assigner, [(boxes, torch.tensor([0, 1]))], priors)
    assert int(both.labels[0, 4]) == 1  # its anchor is that box, and 0.44 of the other


def test_ignored_boxes():
    boxes = torch.tensor([[70.0, 70.0, 120.0, 120.0]])
    truth = [(boxes, torch.tensor([1]))]
    crowd = [Boxes(torch.tensor([[0.0, 0.0, 60.0, 60.0]]))]
    off, _ = assign(ATSSAssigner(), truth, ignored=crowd)
    assert bool((off.weights == 1).all())
    found, _ = assign(ATSSAssigner(ignore_iof_thr=0.5), truth, ignored=crowd)
    assert torch.equal(found.labels, off.labels)
    out = PRIORS[found.weights[0] == 0]
    assert len(out) > 10 and bool((out[:, :2] < 60).all())
    # Where there is nothing else, ignored priors are candidates, and positive ones count.
    everywhere = [Boxes(torch.tensor([[0.0, 0.0, 128.0, 128.0]]))]
    found, _ = assign(ATSSAssigner(ignore_iof_thr=0.01), truth, ignored=everywhere)
    positive = found.labels[0] < CLASSES
    assert torch.equal(found.weights[0] == 1, positive)


@pytest.mark.parametrize("head", [NanoDetHead, GFLHead, NanoDetPlusHead, SimpleConvHead])
@pytest.mark.parametrize("assigner", [ATSSAssigner(), DynamicSoftLabelAssigner()])
def test_any_head_takes_any_assigner(head, assigner):
    part = head(SHAPES, num_classes=CLASSES, assigner=assigner)
    pyramid = {
        name: torch.randn(2, 32, *size) for name, size in zip(SHAPES, [(16, 16), (8, 8), (4, 4)])
    }
    raw = part(pyramid)
    losses = part.losses(raw, part.priors(pyramid), batched(random_truth(0, [4, 0])))
    assert all(float(x) > 0 and torch.isfinite(x) for x in losses.values())


def test_what_does_not_fit_is_refused():
    same = {"p3": ShapeSpec(channels=8, stride=16), "p4": ShapeSpec(channels=8, stride=16)}
    with pytest.raises(ValueError, match=r"ATSSAssigner with levels of strides \[16, 16\]; allow"):
        NanoDetHead(same, num_classes=3)
    assert NanoDetHead(same, num_classes=3, assigner=DynamicSoftLabelAssigner()).strides == [16, 16]
    with pytest.raises(ValueError, match="NanoDetPlusHead has a str as its assigner; allowed: wh"):
        NanoDetPlusHead(SHAPES, num_classes=3, assigner="ATSS")
    with pytest.raises(ValueError, match="topk 0, anchor_scale 5.0; allowed: 1 or more, above 0"):
        ATSSAssigner(topk=0)


def test_legacy_heads_divide_as_gfl():
    """Their box losses are means, however small the scores are that weigh them."""
    pyramid = {name: torch.zeros(1, 32, *size) for name, size in zip(SHAPES, SIZES)}
    truth = batched(random_truth(1, [3]))
    values = []
    for head in (NanoDetPlusHead, NanoDetHead):
        part = head(SHAPES, num_classes=CLASSES, reg_max=7, prior_offset=0.5,
                    assigner=ATSSAssigner())  # fmt: skip
        raw = torch.zeros(1, len(PRIORS), CLASSES + 32)
        raw[..., :CLASSES] = -4.0
        values.append(part.losses(raw, part.priors(pyramid), truth))
    plus, legacy = values
    positive = int((assign(ATSSAssigner(), random_truth(1, [3]))[0].labels < CLASSES).sum())
    weight = positive * float(torch.tensor(-4.0).sigmoid())
    assert weight < 1
    assert float(plus["loss_dfl"]) == pytest.approx(weight * float(legacy["loss_dfl"]), rel=1e-4)
    assert float(plus["loss_qfl"]) == pytest.approx(float(legacy["loss_qfl"]), rel=1e-5)
