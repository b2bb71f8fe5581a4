"""Between two readings of the losses nothing in a step reads the device."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from nanodet_d2.engine import EMAHook, ModelEMA
from nanodet_d2.engine.building import build_model, build_optimizer_of
from nanodet_d2.engine.trainer import Trainer
from tests.scripts import load_script

BENCHMARKS = Path(__file__).parents[2] / "projects" / "nanodet_plus" / "benchmarks"
CONFIG = "projects/nanodet_plus/configs/nanodet_plus_m_416.py"
reads_in = load_script(BENCHMARKS / "common.py").host_reads


def sample(boxes: list[list[float]]) -> dict:
    instances = Instances((96, 96))
    instances.gt_boxes = Boxes(torch.tensor(boxes).reshape(-1, 4))
    instances.gt_classes = torch.arange(len(boxes)) % 80
    image = torch.randint(0, 256, (3, 96, 96), dtype=torch.uint8)
    return {"image": image, "instances": instances}


@pytest.mark.parametrize(
    "branch",
    ["before it leaves", "guide", "drop", pytest.param("micro-batches", marks=pytest.mark.slow)],
)
def test_a_step_reads_nothing(root: Path, branch):
    cfg = LazyConfig.load(str(root / CONFIG))
    cfg.train.device = "cpu"
    cfg.model.head.num_classes = 80
    cfg.model.aux_detach_iter = 100 if branch == "before it leaves" else 0
    cfg.model.aux_after_detach = "drop" if branch == "drop" else "guide"
    cfg.model.micro_batches = 2 if branch == "micro-batches" else 1
    model = build_model(cfg)
    batch = [sample([[10, 20, 60, 90], [5, 5, 30, 30]]), sample([])]
    trainer = Trainer(model, [batch] * 9, build_optimizer_of(cfg, model), log_period=100)
    trainer.register_hooks([EMAHook(ModelEMA(model))])
    trainer.iter, trainer.start_iter, trainer.max_iter = 0, 0, 1000

    def step() -> None:
        trainer.run_step()
        trainer.after_step()
        trainer.iter += 1

    with EventStorage(0) as trainer.storage:
        trainer.before_train()
        assert reads_in(step) == []


def test_the_profiler_sees_a_read():
    """The gradient of prod() looks for zeros: what the losses did once."""
    x = torch.rand(4, 2, requires_grad=True)
    assert reads_in(lambda: x.prod(dim=-1).sum().backward())
    assert reads_in(lambda: bool(x.sum() > 1))
    assert reads_in(lambda: (x * 2).sum().backward()) == []
