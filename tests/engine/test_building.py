"""The memory layout of a model."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from nanodet_d2.engine.building import with_channels_last

TRAIN = """
import torch
from torch import nn
from nanodet_d2.engine.building import with_channels_last
conv = with_channels_last(nn.Sequential(nn.Conv2d(3, 16, 1, 2, bias=False)))
for _ in range(30):
    images = torch.rand(10, 3, 96, 96)
    (conv(images) ** 2).sum().backward()
    others = [torch.rand(37 * i + 1) for i in range(40)]  # meets what was overwritten
"""


def test_all_convolutions_but_strided_ones_of_few_channels_have_the_layout():
    model = nn.Sequential(nn.Conv2d(3, 16, 3, 2), nn.Conv2d(3, 16, 1, 2), nn.Conv2d(16, 8, 1, 2))
    with_channels_last(model)
    assert [x.weight.stride(1) for x in model] == [1, 1, 1]
    assert [x.weight.stride(2) for x in model] == [9, 1, 16]
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.slow
def test_a_strided_convolution_of_three_channels_is_trained():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", TRAIN], capture_output=True)
    assert done.returncode == 0, done.stderr
