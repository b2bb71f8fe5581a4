"""The automatic batch size: what fits on a line through what was measured."""

from __future__ import annotations

import pytest
import torch
from detectron2.config import LazyConfig

from nanodet_d2.engine import choose_batch_size
from nanodet_d2.engine.batch_size import (
    _trial,
    boxes_per_image,
    largest_batch,
)
from nanodet_d2.engine.ranks import on_all_ranks

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
    _trial(cfg, boxes=60)(2)
    assert "model" not in cfg.optimizer.params


def test_the_trial_has_as_many_boxes_as_the_data():
    records = [{"annotations": [{}] * n} for n in (3, 120, 0)]
    assert boxes_per_image(records) == 120
    assert boxes_per_image(records[:1]) == 50 and boxes_per_image([]) == 50
    assert boxes_per_image([{"annotations": [{}] * 5000}]) == 1000


def test_what_one_rank_raises_all_do(monkeypatch):
    def fail() -> int:
        raise ValueError("no batch of 8 fits")

    with pytest.raises(ValueError, match="no batch of 8 fits"):
        on_all_ranks(fail)
    assert on_all_ranks(lambda: 16) == [16]
    gather = "nanodet_d2.engine.ranks.comm.all_gather"
    monkeypatch.setattr(gather, lambda x: [x, ValueError("no batch of 8 fits")])
    with pytest.raises(ValueError, match="no batch of 8 fits"):
        on_all_ranks(lambda: 16)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu(cfg):
    cfg.train.device = "cuda"
    cfg.dataloader.train.total_batch_size = "auto"
    choose_batch_size(cfg)
    assert cfg.dataloader.train.total_batch_size >= 8
