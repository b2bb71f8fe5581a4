"""Batch norms over all ranks; test_launch.py compares a step of two ranks with one of one."""

from __future__ import annotations

import pytest
from detectron2.config import LazyConfig, instantiate
from detectron2.layers import NaiveSyncBatchNorm
from torch import nn

from nanodet_d2.engine.sync_norm import synchronise_norms
from tests.engine.launching import CONFIG


@pytest.fixture
def model():
    return instantiate(LazyConfig.load(str(CONFIG)).model)


def test_all_norms_are_replaced_and_nothing_else(model):
    before = model.state_dict()
    norms = sum(isinstance(x, nn.BatchNorm2d) for x in model.modules())
    after = synchronise_norms(model, torchs_own=False)
    assert sum(isinstance(x, NaiveSyncBatchNorm) for x in after.modules()) == norms > 0
    assert {k: v.data_ptr() for k, v in after.state_dict().items()} == {
        k: v.data_ptr() for k, v in before.items()
    }


def test_gpus_get_torchs_own(model):
    norms = sum(isinstance(x, nn.BatchNorm2d) for x in model.modules())
    after = synchronise_norms(model, torchs_own=True)
    assert sum(isinstance(x, nn.SyncBatchNorm) for x in after.modules()) == norms


def test_what_cannot_be_is_refused(model):
    model.micro_batches = 2
    with pytest.raises(ValueError, match="sync_norm with model.micro_batches=2; allowed: one"):
        synchronise_norms(model, torchs_own=False)
    model.micro_batches = 1
    model.head = nn.Sequential(nn.BatchNorm1d(3))
    with pytest.raises(ValueError, match="found .*BatchNorm1d.*; allowed: BatchNorm2d"):
        synchronise_norms(model, torchs_own=False)
