"""The trainer logs what detectron2's logs, reading the device once per period."""

from __future__ import annotations

import pytest
import torch
from detectron2.engine import HookBase, SimpleTrainer
from torch import nn

from nanodet_d2.engine import build_optimizer
from nanodet_d2.engine.ending import InterruptCheckpointer, LastGood
from nanodet_d2.engine.trainer import Trainer


class Losses(nn.Module):
    """Losses of a weight, of which the last one leaves after iteration 4."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, -2.0]))
        self.calls = 0

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        self.calls += 1
        losses = {"loss_a": (self.weight * x).square().sum(), "loss_c": self.weight.square().sum()}
        if self.calls <= 5:
            losses["loss_b"] = (self.weight - x).abs().sum()
        return losses


def batches(*, bad: int | None = None) -> list[torch.Tensor]:
    values = [torch.tensor([0.1 * i, 1.0]) for i in range(12)]
    if bad is not None:
        values[bad] = torch.tensor([float("nan"), 1.0])
    return values


def make(trainer_class, data=None, **arguments):
    model = Losses()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    return trainer_class(model, data or batches(), optimizer, **arguments)


@pytest.mark.parametrize("period", [1, 5, 100])
def test_logs_the_same_as_detectron2(period):
    mine, theirs = make(Trainer, log_period=period), make(SimpleTrainer)
    mine.train(0, 12)
    theirs.train(0, 12)
    assert torch.equal(mine.model.weight, theirs.model.weight)
    for name in ("loss_a", "loss_b", "loss_c", "total_loss"):
        logged = mine.storage.history(name).values()
        expected = theirs.storage.history(name).values()
        assert [x[1] for x in logged] == [x[1] for x in expected]
        assert [x[0] for x in logged] == pytest.approx([x[0] for x in expected])
    assert mine.storage.iter == 12


def test_reads_once_per_period():
    trainer = make(Trainer, log_period=5)
    read = []

    class Watch(HookBase):
        def after_step(self):
            history = self.trainer.storage.histories().get("loss_a")
            read.append(len(history.values()) if history else 0)

    trainer.register_hooks([Watch()])
    trainer.train(0, 12)
    assert read == [0, 0, 0, 0, 5, 5, 5, 5, 5, 10, 10, 12]


def test_a_bad_loss_ends_the_run_within_the_period_and_is_not_saved():
    trainer = make(Trainer, batches(bad=6), log_period=5)

    class Never:
        def write(self, *args, **kwargs):
            raise AssertionError("a poisoned model was saved")

    never = Never()
    trainer.register_hooks([InterruptCheckpointer(never, LastGood(never))])
    with pytest.raises(FloatingPointError, match=r"not finite in iteration 6: .*'loss_a': nan"):
        trainer.train(0, 12)
    assert trainer.iter == 9


def test_overflows_of_mixed_precision_are_counted_and_left_out():
    """On a CPU, whose scaler does the same as a GPU's; it grows and overflows in turns."""
    trainer = make(Trainer, log_period=5)
    trainer.grad_scaler = torch.amp.GradScaler("cpu", init_scale=2.0**126, growth_interval=2)
    weights = [trainer.model.weight.detach().clone()]

    class Watch(HookBase):
        def after_step(self):
            weights.append(self.trainer.model.weight.detach().clone())

    trainer.register_hooks([Watch()])
    trainer.train(0, 12)
    left_out = sum(torch.equal(a, b) for a, b in zip(weights, weights[1:]))
    assert torch.isfinite(trainer.model.weight).all()
    assert trainer.amp_overflows == left_out > 2
    assert [x[1] for x in trainer.storage.history("loss_a").values()] == [*range(12)]
    assert trainer.state_dict()["amp_overflows"] == left_out


def test_a_bad_loss_ends_mixed_precision_too():
    trainer = make(Trainer, batches(bad=6), log_period=5)
    trainer.grad_scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with pytest.raises(FloatingPointError, match="not finite in iteration 6"):
        trainer.train(0, 12)
    assert torch.isfinite(trainer.model.weight).all()


def test_scaler_and_overflows_are_resumed():
    trainer, other = make(Trainer), make(Trainer)
    for x in (trainer, other):
        x.grad_scaler = torch.amp.GradScaler("cpu", init_scale=2.0**126, growth_interval=5)
    trainer.train(0, 7)
    other.storage = trainer.storage
    other.load_state_dict(trainer.state_dict())
    assert other.grad_scaler.state_dict() == trainer.grad_scaler.state_dict()
    assert other.amp_overflows == trainer.amp_overflows > 0


def test_weights_stay_from_the_first_gradient_on_that_is_not_finite():
    trainer = make(Trainer, batches(bad=6), log_period=5)
    parameters = [trainer.model.weight]
    arguments = dict(optimizer=torch.optim.SGD, clip_grad_norm=5.0, lr=0.01, fused=True)
    trainer.optimizer = build_optimizer(parameters, **arguments)
    with pytest.raises(FloatingPointError, match="iteration 6"):
        trainer.train(0, 12)
    other = make(Trainer)
    other.optimizer = build_optimizer([other.model.weight], **arguments)
    other.train(0, 6)
    assert torch.equal(trainer.model.weight, other.model.weight)


def test_gradients_of_mixed_precision_are_clipped_in_their_own_unit():
    """A GradScaler leaves a fused optimiser's gradients scaled, and says by how much."""
    parameter = nn.Parameter(torch.zeros(2))
    optimizer = build_optimizer(
        [parameter], optimizer=torch.optim.SGD, clip_grad_norm=5.0, lr=1.0, fused=True
    )
    parameter.grad = torch.tensor([30.0, 40.0]) * 1024
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(1024.0), torch.tensor(0.0)
    optimizer.step()
    torch.testing.assert_close(parameter.detach(), torch.tensor([-3.0, -4.0]))
