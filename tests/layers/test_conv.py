"""Norms that act on the weight of their convolution while their statistics stay."""

from __future__ import annotations

import copy

import pytest
import torch
from detectron2.layers import Conv2d
from torch import Tensor, nn

from nanodet_d2.layers import conv_norm_act


def trained_conv(groups: int = 1) -> Conv2d:
    """With statistics and an affine part of a norm that has seen something, in float64."""
    torch.manual_seed(0)
    conv = conv_norm_act(6, 6, 3, groups=groups)
    conv.norm.running_mean.normal_()
    conv.norm.running_var.uniform_(0.5, 2.0)
    nn.init.uniform_(conv.norm.weight, 0.5, 1.5)
    nn.init.normal_(conv.norm.bias)
    return conv.double().train()


def apart(conv: Conv2d, x: Tensor) -> Tensor:
    """Convolution and norm one after the other, as detectron2 runs them."""
    return Conv2d.forward(conv, x)


@pytest.mark.parametrize("groups", [1, 6])
def test_output_and_gradients_are_those_of_the_two_apart(groups: int):
    conv = trained_conv(groups=groups)
    conv.norm.eval()
    results = []
    for run in (lambda m, x: m(x), apart):
        model = copy.deepcopy(conv)
        x = torch.linspace(-1, 1, 2 * 6 * 5 * 5, dtype=torch.float64).view(2, 6, 5, 5)
        x.requires_grad_()
        y = run(model, x)
        y.square().sum().backward()
        results.append([y, x.grad, *(p.grad for p in model.parameters())])
    assert len(results[0]) == 5  # output, input, weight, and two of the norm
    for ours, theirs in zip(*results):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("norm", ["BN", "", "GN", "FrozenBN"])
def test_any_other_norm_runs_as_before(norm: str):
    conv = conv_norm_act(32, 32, 3, norm=norm).double().train()
    x = torch.randn(2, conv.in_channels, 5, 5, dtype=torch.float64)
    assert torch.equal(copy.deepcopy(conv)(x), apart(copy.deepcopy(conv), x))


def test_statistics_are_taken_while_the_norm_trains_and_kept_while_it_does_not():
    conv = trained_conv()
    x = torch.randn(2, 6, 5, 5, dtype=torch.float64)
    before = conv.norm.running_mean.clone()
    conv.norm.eval()
    conv(x)
    assert torch.equal(before, conv.norm.running_mean)
    conv.norm.train()
    conv(x)
    assert not torch.equal(before, conv.norm.running_mean)


def test_inference_runs_the_norm_by_itself():
    """Where fusing looks for it, and bit for bit as before."""
    conv = trained_conv().eval()
    x = torch.randn(2, 6, 5, 5, dtype=torch.float64)
    assert torch.equal(conv(x), apart(conv, x))
