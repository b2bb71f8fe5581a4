"""The automatic batch size: what fits on a line through what was measured."""

from __future__ import annotations

import pytest
import torch
from detectron2.config import LazyConfig

from nanodet_d2.engine import choose_batch_size
from nanodet_d2.engine.batch_size import _trial, largest_batch

MIB = 2**20


@pytest.mark.parametrize(("budget", "batch"), [(1000, 88), (900, 80), (180, 8), (10_100, 1000)])
def test_by_hand(budget, batch):
    used = {4: 140 * MIB, 8: 180 * MIB, 16: 260 * MIB}  # 100 + 10 per image
    assert largest_batch(used, budget * MIB) == batch


def test_nothing_fits():
    used = {4: 140 * MIB, 8: 180 * MIB, 16: 260 * MIB}
    with pytest.raises(ValueError, match="4 images takes 140 MiB; allowed are 150 MiB"):
        largest_batch(used, 150 * MIB)


@pytest.fixture
def cfg(root):
    cfg = LazyConfig.load(str(root / "projects" / "nanodet_plus" / "configs" / "demo_shapes.py"))
    cfg.model.head.num_classes = 3
    cfg.train.device = "cpu"
    return cfg


def test_a_number_is_left_alone_and_a_cpu_refused(cfg):
    choose_batch_size(cfg)
    assert cfg.dataloader.train.total_batch_size == 16
    cfg.dataloader.train.total_batch_size = "auto"
    with pytest.raises(ValueError, match="auto needs a GPU, found train.device=cpu"):
        choose_batch_size(cfg)


def test_the_trial_is_a_training_step(cfg):
    cfg.data.input_size = [64, 96]
    _trial(cfg)(2)
    assert "model" not in cfg.optimizer.params


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu(cfg):
    cfg.train.device = "cuda"
    cfg.dataloader.train.total_batch_size = "auto"
    choose_batch_size(cfg)
    assert cfg.dataloader.train.total_batch_size >= 8
