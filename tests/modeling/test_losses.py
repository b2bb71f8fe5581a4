"""Losses and box coding against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from nanodet_d2.modeling.head.box_coding import (
    decode_boxes,
    encode_distances,
    expected_distances,
    grid_priors,
)
from nanodet_d2.modeling.head.losses import (
    background_focal_loss,
    distribution_focal_loss,
    focal_correction,
    giou_loss,
    pairwise_iof,
    pairwise_iou,
    softplus,
)

BINS = torch.arange(8.0)


def test_giou_of_disjoint_touching_and_equal_boxes():
    a = torch.tensor([[0.0, 0.0, 2.0, 2.0]]).expand(3, 4)
    b = torch.tensor([[4.0, 0.0, 6.0, 2.0], [2.0, 0.0, 4.0, 2.0], [0.0, 0.0, 2.0, 2.0]])
    # hull 6 x 2 = 12, union 8: GIoU = 0 - 4 / 12; touching: 0; equal: 1
    torch.testing.assert_close(giou_loss(a, b), torch.tensor([1 + 1 / 3, 1.0, 0.0]))


def test_giou_of_boxes_without_area_is_finite():
    point = torch.zeros(1, 4, requires_grad=True)
    loss = giou_loss(point, torch.tensor([[0.0, 0.0, 4.0, 4.0]]))
    loss.sum().backward()
    assert torch.isfinite(loss).all() and torch.isfinite(point.grad).all()


def test_overlaps():
    a = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
    b = torch.tensor([[1.0, 0.0, 3.0, 2.0], [0.0, 0.0, 8.0, 8.0]])
    torch.testing.assert_close(pairwise_iou(a, b), torch.tensor([[1 / 3, 4 / 64], [0.0, 0.0]]))
    torch.testing.assert_close(pairwise_iof(a, b), torch.tensor([[0.5, 1.0], [0.0, 0.0]]))


def test_focal_losses_by_hand():
    logits = torch.zeros(2, 3)  # sigmoid 1/2, entropy ln 2 whatever the target
    background = torch.full((2,), 3 * math.log(2) / 4)
    torch.testing.assert_close(background_focal_loss(logits), background)
    correction = focal_correction(logits[:, 0], torch.tensor([0.9, 0.0]))
    expected = torch.tensor([math.log(2) * (0.9 - 0.5) ** 2 - math.log(2) / 4, 0.0])
    torch.testing.assert_close(correction, expected)


def plain_focal_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (entropy * (target - logits.sigmoid()).square()).sum(-1)


@pytest.mark.parametrize("layout", ["rows", "columns"])
def test_focal_losses_are_those_of_the_paper_everywhere(layout):
    torch.manual_seed(0)
    logits = torch.randn(4, 50, 7) * 6
    logits.view(-1)[:4] = torch.tensor([0.0, 95.0, -95.0, 30.0])
    logits = (logits if layout == "rows" else logits.mT.contiguous().mT).requires_grad_()
    own, scores = torch.randint(0, 7, (4, 50, 1)), torch.rand(4, 50)
    target = torch.zeros(4, 50, 7).scatter_(-1, own, scores.unsqueeze(-1))
    expected = plain_focal_loss(logits.double(), target.double())
    (expected_gradient,) = torch.autograd.grad(expected.sum(), logits)
    loss = background_focal_loss(logits)
    loss = loss + focal_correction(logits.gather(-1, own).squeeze(-1), scores)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    torch.testing.assert_close(loss, expected.float(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-6)


def test_background_loss_keeps_what_is_not_finite():
    logits = torch.tensor([[0.0, float("inf")], [0.0, float("nan")], [0.0, float("-inf")]])
    found = background_focal_loss(logits).tolist()
    assert (
        found[0] == math.inf and math.isnan(found[1]) and found[2] == pytest.approx(math.log(2) / 4)
    )


def test_softplus_has_torchs_value_and_slope():
    x = torch.tensor([-200.0, -20.0, -1.0, 0.0, 1.0, 20.0, 200.0], requires_grad=True)
    mine, theirs = softplus(x), F.softplus(x)
    torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-7)
    slopes = [torch.autograd.grad(y.sum(), x)[0] for y in (mine, theirs)]
    torch.testing.assert_close(*slopes, rtol=1e-6, atol=1e-7)


def test_distribution_focal_loss_by_hand():
    uniform = torch.zeros(1, 32)
    loss = distribution_focal_loss(uniform, torch.tensor([[0.0, 2.3, 5.0, 6.9]]))
    torch.testing.assert_close(loss, torch.tensor([math.log(8)]))
    # All mass on bin 2: a target of 2.25 has 1/4 of its weight on bin 3, whose log p is -20.
    peaked = torch.full((1, 4, 8), -20.0)
    peaked[..., 2] = 0.0
    loss = distribution_focal_loss(peaked.flatten(1), torch.full((1, 4), 2.25))
    torch.testing.assert_close(loss, torch.tensor([5.0]), atol=1e-4, rtol=0)


def test_distances_are_the_mean_of_the_distribution():
    logits = torch.full((4, 8), -100.0)
    logits[0, 0] = logits[1, 7] = logits[2, 3] = logits[2, 4] = 0.0
    logits[3] = 1.0
    expected = torch.tensor([0.0, 7.0, 3.5, 3.5])
    torch.testing.assert_close(expected_distances(logits.flatten(), BINS), expected)


def test_priors_sit_on_the_cell_corners_row_by_row():
    priors = grid_priors([(2, 3), (1, 2)], [8, 16], torch.device("cpu"))
    assert priors.tolist() == [
        [0, 0, 8], [8, 0, 8], [16, 0, 8], [0, 8, 8], [8, 8, 8], [16, 8, 8],
        [0, 0, 16], [16, 0, 16],
    ]  # fmt: skip


def test_decode_and_encode_are_inverse_within_reach():
    priors = grid_priors([(4, 4)], [16], torch.device("cpu"))
    distances = torch.rand(2, 16, 4) * 6.9
    boxes = decode_boxes(priors, distances)
    torch.testing.assert_close(encode_distances(priors, boxes, 7), distances, atol=1e-4, rtol=0)
    assert boxes[0, 5].tolist() == pytest.approx(
        [
            16 - 16 * float(distances[0, 5, 0]),
            16 - 16 * float(distances[0, 5, 1]),
            16 + 16 * float(distances[0, 5, 2]),
            16 + 16 * float(distances[0, 5, 3]),
        ],
        rel=1e-5,
    )


def test_targets_beyond_reach_are_clipped():
    priors = torch.tensor([[50.0, 50.0, 8.0]])
    far_and_behind = torch.tensor([[-1000.0, 60.0, 1000.0, 70.0]])
    encoded = encode_distances(priors, far_and_behind, 7)
    torch.testing.assert_close(encoded, torch.tensor([[6.9, 0.0, 6.9, 2.5]]))
