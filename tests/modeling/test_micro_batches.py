from __future__ import annotations

import copy
from functools import partial

import pytest
import torch

from nanodet_d2.modeling import NanoDetPlus, ShuffleNetV2
from tests.modeling.test_nanodet_plus import EMPTY, sample

BATCH = 32


def batch() -> list[dict]:
    torch.manual_seed(0)
    boxes = torch.rand(BATCH, 3, 2) * 50
    boxes = torch.cat([boxes, boxes + 10 + torch.rand(BATCH, 3, 2) * 36], dim=2).tolist()
    return [
        sample(**EMPTY) if i % 5 == 0 else sample(boxes=x, classes=(0, 1, 1))
        for i, x in enumerate(boxes)
    ]


@pytest.fixture
def build_small(build_model):
    backbone = ShuffleNetV2("0.5x", activation="LeakyReLU", out_features=("res3", "res4"))
    return partial(build_model, backbone=backbone)


def step(model: NanoDetPlus, inputs: list[dict], micro_batches: int) -> tuple[dict, dict]:
    """Losses and gradients of a copy of the model, whose buffers are kept as well."""
    model = copy.deepcopy(model).train()
    model.micro_batches = micro_batches
    losses = model(inputs)
    sum(losses.values()).backward()
    gradients = {k: p.grad for k, p in model.named_parameters() if p.grad is not None}
    return {k: v.item() for k, v in losses.items()}, {**gradients, **dict(model.named_buffers())}


@pytest.mark.parametrize("aux_after_detach", ["guide", "drop"])
def test_four_times_eight_equal_thirty_two(build_small, aux_after_detach):
    model = build_small(freeze_norm=True, aux_after_detach=aux_after_detach)
    inputs = batch()
    losses, gradients = step(model, inputs, 1)
    in_pieces, gradients_in_pieces = step(model, inputs, 4)
    assert in_pieces == pytest.approx(losses, rel=1e-5)
    assert gradients.keys() == gradients_in_pieces.keys()
    largest = max(g.abs().max() for g in gradients.values())
    for name, gradient in gradients.items():
        torch.testing.assert_close(
            gradients_in_pieces[name], gradient, rtol=1e-3, atol=1e-5 * float(largest), msg=name
        )


def test_pieces_need_not_be_equal(build_small):
    model = build_small(freeze_norm=True)
    inputs = batch()[:7]
    assert step(model, inputs, 3)[0] == pytest.approx(step(model, inputs, 1)[0], rel=1e-5)
    assert step(model, inputs[:2], 3)[0] == pytest.approx(step(model, inputs[:2], 1)[0], rel=1e-5)


def test_norms_take_each_piece_once(build_small):
    """Although the network sees it twice."""
    model = build_small()
    inputs = batch()[:4]
    _, twice = step(model, [inputs[0]] * 2, 2)
    _, once = step(model, [inputs[0]], 1)
    name = next(k for k in once if k.startswith("backbone") and k.endswith("running_mean"))
    one, two = once[name], twice[name]  # after 1 and 2 updates from 0: 0.1 x and 0.19 x
    torch.testing.assert_close(two, 1.9 * one, rtol=1e-4, atol=1e-6)


def test_none_at_all_are_refused(build_small):
    with pytest.raises(ValueError, match="micro_batches 0; allowed: 1 or more"):
        build_small(micro_batches=0)
