"""Losses over several processes (Gloo, on the CPU)."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes, Instances

from nanodet_d2.modeling import NanoDetPlusHead
from nanodet_d2.modeling.head import GroundTruth
from tests.forking import forks


def make_losses(boxes: list[list[float]]) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    head = NanoDetPlusHead({"p3": ShapeSpec(channels=8, stride=8)}, num_classes=3)
    pyramid = {"p3": torch.randn(1, 8, 16, 16)}
    instances = Instances(
        (128, 128),
        gt_boxes=Boxes(torch.tensor(boxes).reshape(-1, 4)),
        gt_classes=torch.zeros(len(boxes), dtype=torch.int64),
    )
    truth = GroundTruth.from_instances([instances])
    return head.losses(head(pyramid), head.priors(pyramid), truth)


BOXES = [[[16.0, 16.0, 100.0, 100.0], [60.0, 60.0, 120.0, 90.0]], []]  # the second rank has none


def worker(rank: int, init_file: str, results: str) -> None:
    dist.init_process_group("gloo", f"file://{init_file}", rank=rank, world_size=2)
    losses = make_losses(BOXES[rank])
    torch.save({k: v.detach() for k, v in losses.items()}, f"{results}.{rank}")
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(not dist.is_gloo_available(), reason="torch has no Gloo here")
def test_normalisers_are_means_over_ranks_and_no_rank_hangs(tmp_path):
    files = (str(tmp_path / "init"), str(tmp_path / "out"))
    processes = [forks.Process(target=worker, args=(rank, *files)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    ranks = [torch.load(tmp_path / f"out.{rank}") for rank in range(2)]
    alone = [make_losses(boxes) for boxes in BOXES]
    # Alone the first rank divides by its own number of positives; together by half of it.
    assert float(ranks[0]["loss_qfl"]) == pytest.approx(2 * float(alone[0]["loss_qfl"]), rel=1e-5)
    assert float(ranks[1]["loss_bbox"]) == float(ranks[1]["loss_dfl"]) == 0
    assert float(ranks[1]["loss_qfl"]) < float(alone[1]["loss_qfl"])
