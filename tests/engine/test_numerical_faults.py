"""Numbers that went wrong are found or counted within one logging period, whatever they are."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from detectron2.engine import HookBase
from torch import nn

from nanodet_d2.checkpoint import SafeCheckpointer, read_file
from nanodet_d2.engine import EMAHook, ModelEMA, build_optimizer
from nanodet_d2.engine.ending import InterruptCheckpointer, LastGood
from nanodet_d2.engine.trainer import MAX_SKIPPED, Trainer

AT, PERIOD, STEPS = 7, 5, 40  # the fault's iteration; readings are after iterations 4, 9, 14, …


class Tiny(nn.Module):
    """Two losses of a layer with a batch norm, and a weight that no loss depends on."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)
        self.idle = nn.Parameter(torch.ones(2))
        self.factor = 1.0  # of a loss

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        y = self.norm(self.layer(x))
        losses = {"loss_a": y.square().mean(), "loss_b": (y - 1).abs().mean()}
        return {**losses, "loss_c": self.factor * y.mean()}


class Fault(HookBase):
    """Changes something before an iteration, and takes it back after it."""

    def __init__(self, name: str, last: int = AT):
        self.name = name
        self.last = last

    def before_step(self) -> None:
        if not AT <= self.trainer.iter <= self.last:
            return
        model, bad = self.trainer.model, float("nan")
        if self.name == "loss":
            model.factor = bad
        elif self.name == "infinite loss":
            model.factor = float("inf")
        elif self.name == "gradient":
            self.handle = model.layer.weight.register_hook(lambda g: g * float("inf"))
        with torch.no_grad():
            if self.name == "weight":
                model.layer.weight[0, 0] = bad
            elif self.name == "idle weight":
                model.idle[1] = bad
            elif self.name == "buffer":
                model.norm.running_var[2] = bad
            elif self.name == "average":
                self.ema._state["layer.bias"][0] = bad
            elif self.name == "moment":
                self.trainer.optimizer.state[model.layer.bias]["exp_avg_sq"][0] = float("inf")

    def after_step(self) -> None:
        self.trainer.model.factor = 1.0
        if hasattr(self, "handle"):
            self.handle.remove()


def make(folder: Path, fault: Fault | None, *, scaled: bool = False) -> Trainer:
    folder.mkdir(exist_ok=True)
    model = Tiny()
    optimizer = build_optimizer(model.parameters(), lr=0.01, clip_grad_norm=35.0, fused=True)
    batches = list(torch.randn(STEPS, 8, 3, generator=torch.Generator().manual_seed(1)))
    trainer = Trainer(model, batches, optimizer, log_period=PERIOD, report_dir=str(folder))
    if scaled:
        trainer.grad_scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    ema = ModelEMA(model)
    checkpointer = SafeCheckpointer(model, str(folder), trainer=trainer, ema=ema)
    last_good = LastGood(checkpointer)
    ending = InterruptCheckpointer(checkpointer, last_good)
    trainer.register_hooks([fault, EMAHook(ema), last_good, ending])
    if fault is not None:
        fault.ema = ema
    return trainer


def numbers(content: object) -> list[torch.Tensor]:
    """All tensors of floats in nested dicts and lists."""
    if isinstance(content, torch.Tensor):
        return [content] if content.is_floating_point() else []
    if isinstance(content, dict):
        content = list(content.values())
    return [y for x in content for y in numbers(x)] if isinstance(content, list) else []


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("loss", r"loss is not finite in iteration 7: .*'loss_c': nan"),
        ("infinite loss", r"loss is not finite in iteration 7: .*'loss_c': -?inf"),
        ("weight", r"loss is not finite in iteration 7: .*'loss_a': nan"),
        ("idle weight", r"not finite after iteration 9, rank 0: .*idle"),
        ("buffer", r"not finite after iteration 9, rank 0: model.norm.running_var"),
        ("average", r"not finite after iteration 9, rank 0: ema.layer.bias"),
        ("moment", r"not finite after iteration 9, rank 0: trainer.optimizer.*exp_avg_sq"),
    ],
)
def test_ends_with_the_last_good_weights(tmp_path, name, message, scaled):
    trainer = make(tmp_path, Fault(name), scaled=scaled)
    with pytest.raises(FloatingPointError, match=message):
        trainer.train(0, STEPS)
    assert trainer.iter == 9  # the next reading
    saved = read_file(str(tmp_path / "model_0000004.pth"))
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000004.pth"
    assert saved["iteration"] == saved["trainer"]["iteration"] == 4
    found = numbers(saved)
    assert len(found) > 20 and all(x.isfinite().all() for x in found)
    # It is the state after iteration 4, and a training goes on from it.
    other = make(tmp_path / "other", None, scaled=scaled)
    other.train(0, 5)
    for key, value in other.model.state_dict().items():
        assert torch.equal(saved["model"][key], value), key
    assert (tmp_path / "nonfinite_0000007.pth").is_file() == message.startswith("loss")


def test_a_gradient_is_left_out_and_counted(tmp_path, caplog):
    trainer = make(tmp_path, Fault("gradient"))
    weights = []

    class Watch(HookBase):
        def after_step(self):
            weights.append(self.trainer.model.layer.weight.detach().clone())

    trainer.register_hooks([Watch()])
    with caplog.at_level(logging.WARNING, logger="nanodet_d2"):
        trainer.train(0, STEPS)
    moved = [not torch.equal(a, b) for a, b in zip(weights, weights[1:])]
    assert [i + 1 for i, x in enumerate(moved) if not x] == [AT]  # only this one
    assert trainer.skipped_steps == 1 and weights[-1].isfinite().all()
    logged = trainer.storage.history("skipped_steps").values()
    assert [(value, iteration) for value, iteration in logged][0] == (1, 9)
    assert caplog.text.count("1 steps were left out: their gradients were not finite") == 1
    other = make(tmp_path / "other", None)
    other.storage = trainer.storage
    other.load_state_dict(trainer.state_dict())
    assert other.skipped_steps == 1


def test_a_gradient_of_mixed_precision_counts_as_an_overflow(tmp_path):
    trainer = make(tmp_path, Fault("gradient"), scaled=True)
    trainer.train(0, STEPS)
    assert trainer.amp_overflows == 1
    assert all(x.isfinite().all() for x in trainer.model.state_dict().values())


@pytest.mark.parametrize("scaled", [False, True])
def test_gradients_that_stay_bad_end_the_training(tmp_path, scaled):
    trainer = make(tmp_path, Fault("gradient", last=STEPS), scaled=scaled)
    with pytest.raises(FloatingPointError, match=r"in the last \d+ steps, to iteration 29"):
        trainer.train(0, STEPS)
    assert AT + MAX_SKIPPED <= trainer.iter + 1 < AT + MAX_SKIPPED + PERIOD
    saved = read_file(str(tmp_path / "model_0000024.pth"))
    assert all(x.isfinite().all() for x in numbers(saved))


def test_nothing_good_was_seen(tmp_path, caplog):
    trainer = make(tmp_path, Fault("loss"))
    trainer.read_periods = [10]
    with pytest.raises(FloatingPointError):
        trainer.train(0, STEPS)
    assert "no step is known to have been good" in caplog.text
    assert not list(tmp_path.glob("model_*"))
