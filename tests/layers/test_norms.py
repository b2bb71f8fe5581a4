"""Copies of buffers."""

from __future__ import annotations

import torch
from torch import nn

from nanodet_d2.layers import KeptBuffers


def test_what_a_forward_pass_changes_comes_back():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4))
    # Tables as some networks have them: repeated without being copied, and in another order.
    model.register_buffer("repeated", torch.arange(3.0).expand(2, 3))
    model.register_buffer("turned", torch.arange(6.0).view(2, 3).t())
    model = model.to(memory_format=torch.channels_last)
    kept = KeptBuffers(model)
    model(torch.randn(2, 3, 4, 4))
    kept.keep()
    before = {name: x.clone() for name, x in model.named_buffers()}
    model(torch.randn(2, 3, 4, 4))
    assert not torch.equal(before["1.running_mean"], model[1].running_mean)
    assert int(model[1].num_batches_tracked) == 2
    kept.restore()
    assert all(torch.equal(before[name], x) for name, x in model.named_buffers())


def test_a_model_without_buffers():
    kept = KeptBuffers(nn.Linear(2, 2))
    kept.keep()
    kept.restore()
