"""Trainings for so many minutes or epochs: a clock that is set by hand, and a real one."""

from __future__ import annotations

import functools
import math
import re
import time

import pytest
import torch
import torch.distributed as dist
from detectron2.config import instantiate
from detectron2.engine import HookBase, hooks

from nanodet_d2.checkpoint import read_file
from nanodet_d2.config import apply_overrides, get_config
from nanodet_d2.engine import Evaluation, length, train, training, warmup_cosine
from nanodet_d2.engine.budget import Costs, Paced, TimeBudget
from nanodet_d2.engine.building import build_model
from nanodet_d2.engine.length import counts_iterations, minutes_to_iterations
from nanodet_d2.engine.loop import Loop
from nanodet_d2.engine.trainer import Trainer
from tests.engine.launching import OVERRIDES, torchrun

BASE_RATE = 0.1


class Clock:
    """Seconds that pass only when it is told so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Evaluations(HookBase):
    """Take time after each period of steps, and at the end."""

    def __init__(self, clock: Clock, seconds, period: int):
        self.clock, self.seconds, self.period = clock, seconds, period
        self.at: list[int] = []

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done < self.trainer.max_iter and self.period and done % self.period == 0:
            self._evaluate(done)

    def after_train(self) -> None:
        self._evaluate(self.trainer.iter)

    def _evaluate(self, done: int) -> None:
        self.clock.now += self.seconds(self.clock.now)
        self.at.append(done)


class Machine(Loop):
    """A training whose steps only take time: ``step`` seconds of them at a time."""

    def __init__(self, clock: Clock, step):
        super().__init__()
        self.clock, self.step = clock, step
        self.optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=BASE_RATE)
        self.rates: list[float] = []

    def run_step(self) -> None:
        self.rates.append(self.optimizer.param_groups[0]["lr"])
        self.optimizer.step()
        self.clock.now += self.step(self.clock.now)

    def run(self, budget: TimeBudget, costs: Costs, *, start=0, period=0, evaluation) -> list[int]:
        """Train; at which steps there were evaluations is returned."""
        max_iter = budget.plan(costs, start_iter=start, period=period)
        schedule = Paced(warmup_cosine(max_iter=max_iter, warmup_iters=10), budget, max_iter)
        evaluations = Evaluations(self.clock, evaluation, period)
        self.register_hooks([budget, hooks.LRScheduler(scheduler=schedule), evaluations])
        for group in self.optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])  # as a loaded optimiser's
        self.train(start, max_iter)
        return evaluations.at


@pytest.mark.parametrize("period", [0, 40])
@pytest.mark.parametrize("factor", [1.0, 2.5, 0.4])
@pytest.mark.parametrize("measured", [0.5, 1.0, 2.0])
def test_a_training_ends_in_time_on_a_machine_that_changes(period, factor, measured):
    """Half way its speed changes; what was measured before may be off as well."""
    clock = Clock()
    seconds, set_up, step, evaluation = 180.0, 7.0, 0.15, 4.0

    def speed(now: float) -> float:
        return factor if now > seconds / 2 else 1.0

    budget = TimeBudget(seconds, clock=clock)
    clock.now += set_up
    trainer = Machine(clock, lambda now: step * speed(now))
    costs = Costs(measured * step, measured * evaluation)
    at = trainer.run(budget, costs, period=period, evaluation=lambda now: evaluation * speed(now))
    assert clock.now == pytest.approx(seconds, rel=0.05) and clock.now < seconds + 0.5
    assert budget.used == clock.now
    assert at[-1] == trainer.iter == trainer.max_iter == len(trainer.rates)
    assert at[:-1] == [x for x in range(period or 10**9, at[-1], period or 1)]
    # The whole schedule, without a jump: warm-up, then down to the end of the cosine.
    peak = trainer.rates.index(max(trainer.rates))
    assert 3 <= peak <= 40 and max(trainer.rates) > 0.99 * BASE_RATE
    assert trainer.rates[:peak] == sorted(trainer.rates[:peak])
    assert trainer.rates[peak:] == sorted(trainer.rates[peak:], reverse=True)
    assert trainer.rates[-1] == pytest.approx(0.05 * BASE_RATE, rel=0.1)
    changes = [a - b for a, b in zip(trainer.rates[peak:], trainer.rates[peak + 1 :])]
    assert max(changes) < 0.02 * BASE_RATE


@pytest.mark.parametrize("stalled", [26, 100])
def test_a_step_that_stalls_does_not_end_a_training(stalled):
    """Somebody else's program took the processor for a moment; the rest of the time is used."""
    clock, evaluation = Clock(), 1.2
    budget = TimeBudget(30.0, clock=clock)
    trainer = Machine(clock, lambda now: 2.0 if trainer.iter == stalled else 0.04)
    trainer.run(budget, Costs(0.04, evaluation), evaluation=lambda now: evaluation)
    assert clock.now == pytest.approx(30 - 2, abs=0.5)  # two seconds are spared
    assert trainer.iter == pytest.approx((30 - 2 - 2 - evaluation) / 0.04, rel=0.05)


def test_steps_that_get_cheaper_are_foreseen():
    """The auxiliary branch leaves: a quarter of the time from there on."""
    clock = Clock()
    budget = TimeBudget(120.0, clock=clock)
    costs = Costs(0.1, 3.0, early_step=0.4, early_until=100)
    trainer = Machine(clock, lambda now: 0.4 if trainer.iter < 100 else 0.1)
    first = budget.plan(costs, start_iter=0, period=0)
    trainer.run(budget, costs, evaluation=lambda now: 3.0)
    assert clock.now == pytest.approx(120, rel=0.02)
    assert trainer.max_iter == pytest.approx(first, rel=0.01)
    assert first == 100 + int((120 - 2 - 3 - 40) / 0.1)


def test_a_resume_keeps_the_budget():
    def machine(clock: Clock) -> Machine:
        return Machine(clock, lambda now: 0.2)

    costs, evaluation = Costs(0.2, 2.0), lambda now: 2.0
    clock = Clock()
    budget, trainer = TimeBudget(100.0, clock=clock), machine(clock)
    states = []

    class Saving(HookBase):
        def after_step(self) -> None:
            if self.trainer.iter == 199:  # 40 s
                states.append(budget.state_dict())

    trainer.register_hooks([Saving()])
    trainer.run(budget, costs, evaluation=evaluation)
    (state,) = states
    assert state["used"] == pytest.approx(40)

    clock = Clock()
    clock.now = 5000.0  # whatever the time is
    again, resumed = TimeBudget(100.0, clock=clock), machine(clock)
    again.load_state_dict(state)
    clock.now += 6.0  # it reads the checkpoint
    resumed.run(again, costs, start=200, evaluation=evaluation)
    assert again.used == pytest.approx(100, rel=0.05) and clock.now < 5000 + 60
    assert abs(trainer.iter - resumed.iter - 30) <= 1  # six seconds' worth
    # The rate goes on where it was.
    assert resumed.rates[0] == pytest.approx(trainer.rates[200], rel=0.01)
    assert resumed.rates[-1] == pytest.approx(0.05 * BASE_RATE, rel=0.1)

    more = TimeBudget(200.0, clock=clock)
    more.load_state_dict(state)
    more.plan(costs, start_iter=200, period=0)
    assert more.place(200) == pytest.approx(state["place"] / 2) and more.left == pytest.approx(160)


def test_costs_tell_how_many_steps_fit():
    costs = Costs(0.5, 3.0)
    assert costs.steps_in(10.2, 0, period=0) == 20
    assert costs.steps_in(-5.0, 0, period=0) == 0
    # 10 steps, 5 s; an evaluation, 3 s; two steps more
    assert costs.steps_in(9.0, 0, period=10) == 12
    assert costs.steps_in(7.9, 0, period=10) == 10  # nothing would follow the evaluation
    assert costs.steps_in(9.0, 4, period=10) == 12
    assert costs.steps_in(16 + 8 + 1, 0, period=10) == 32
    two_kinds = Costs(0.5, 3.0, early_step=2.0, early_until=10)
    assert two_kinds.of_steps(8, 13) == 2 * 2.0 + 3 * 0.5
    assert two_kinds.steps_in(5.5, 8, period=0) == 2 + 3
    assert two_kinds.steps_in(3.0, 8, period=0) == 1
    for seconds in range(100):  # what is counted is what it takes
        for period in (0, 7):
            steps = two_kinds.steps_in(float(seconds), 3, period=period)
            passed = [x for x in range(4, 3 + steps) if period and x % period == 0]
            took = two_kinds.of_steps(3, 3 + steps) + 3.0 * len(passed)
            assert took <= seconds


def settings(*overrides: str):
    cfg = get_config("common/optim.py")  # any node
    cfg = apply_overrides(cfg, [])
    cfg.train = get_config("common/train.py").train
    cfg.lr_multiplier = get_config("common/schedule.py").lr_multiplier
    return apply_overrides(cfg, list(overrides))


@pytest.mark.parametrize(
    "overrides, message",
    [
        (
            ["train.minutes=10", "train.epochs=30"],
            "minutes=10 and train.epochs=30; allowed: one of them, in place of train.max_iter",
        ),
        (["train.minutes=0"], "train.minutes 0; allowed: more than 0"),
        (["train.epochs=-1"], "train.epochs -1; allowed: more than 0"),
    ],
)
def test_only_one_of_them_counts(overrides, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        counts_iterations(settings(*overrides))
    assert counts_iterations(settings())
    assert not counts_iterations(settings("train.minutes=0.5"))


def test_what_is_counted_in_iterations_is_fitted_to_the_minutes():
    clock = Clock()
    cfg = settings("train.minutes=10")
    minutes_to_iterations(cfg, TimeBudget(600, clock=clock), Costs(0.5, 3.0), start_iter=0)
    # 600 s but for 6 s, an evaluation at the end and nine before it
    assert cfg.train.max_iter == int((594 - 10 * 3) / 0.5)
    assert cfg.train.eval_period == math.ceil(1182 / 10)
    assert cfg.lr_multiplier.warmup_iters == 112  # of 500: a tenth of them

    cfg = settings("train.minutes=10", "train.eval_period=77", "lr_multiplier.warmup_iters=9")
    minutes_to_iterations(cfg, TimeBudget(600, clock=clock), Costs(0.5, 30.0), start_iter=0)
    assert (cfg.train.eval_period, cfg.lr_multiplier.warmup_iters) == (77, 9)

    cfg = settings("train.minutes=10")  # evaluations that take long are few, or none
    minutes_to_iterations(cfg, TimeBudget(600, clock=clock), Costs(0.5, 30.0), start_iter=0)
    assert cfg.train.max_iter // cfg.train.eval_period == 1
    cfg = settings("train.minutes=10")
    minutes_to_iterations(cfg, TimeBudget(600, clock=clock), Costs(0.5, 70.0), start_iter=0)
    assert cfg.train.eval_period == 0
    with pytest.raises(ValueError, match="minutes=10: no time is left for a step of 0.5 s: .* 700"):
        minutes_to_iterations(
            settings("train.minutes=10"),
            TimeBudget(600, clock=clock),
            Costs(0.5, 700.0),
            start_iter=0,
        )


def test_epochs_are_passes_over_the_images(config, tmp_path, caplog):
    """24 images, 4 in a batch."""
    cfg = config("train.epochs=0.5", "train.eval_period=12320")
    with caplog.at_level("INFO", logger="nanodet_d2"):
        train(cfg)
    assert read_file(str(tmp_path / "out" / "model_final.pth"))["iteration"] == 2
    assert "train.epochs=0.5: 3 steps of 4 images" in caplog.text
    assert cfg.train.eval_period == 1  # a tenth, as of max_iter
    assert "iter: 2  epoch: 0.5/0.5" in caplog.text
    cfg.dataloader.train = {"_target_": "builtins.list", "total_batch_size": 4}
    with pytest.raises(ValueError, match="train.epochs=0.5, but list does not tell"):
        length.epochs_to_iterations(cfg, [])


@pytest.fixture
def timed_training(monkeypatch) -> Clock:
    """The clock of trainings whose steps take 2 s, whatever the machine does."""
    clock, step = Clock(), Trainer.run_step

    def slow_step(self) -> None:
        step(self)
        clock.now += 2.0

    monkeypatch.setattr(Trainer, "run_step", slow_step)
    monkeypatch.setattr(training, "TimeBudget", functools.partial(TimeBudget, clock=clock))
    monkeypatch.setattr(length, "rehearse", lambda *_, **__: Costs(2.0, 3.0))
    return clock


def test_a_training_by_time_is_one_like_all_others(config, tmp_path, caplog, timed_training):
    """It ends with a final checkpoint, an evaluation and the whole log, and can be resumed."""
    out, options = tmp_path / "out", ("train.eval_period=12320", "train.checkpointer.period=6160")
    cfg = config("train.minutes=0.3", "train.early_stop_patience=9", *options)
    with caplog.at_level("INFO", logger="nanodet_d2"):
        results = train(cfg)
    assert results["bbox"].keys() >= {"AP"}
    # 18 s: 2 are spared, 3 are for the evaluation at the end, and its time goes by nowhere here.
    steps = cfg.train.max_iter
    assert steps == 6 and "train.minutes=0.3: about 6 steps of 2 s" in caplog.text
    assert f"{steps} steps in 12.0 of 18.0 s" in caplog.text
    assert re.search(r"eta: 0:00:16  iter: 0  epoch: 0.2/1.0", caplog.text)
    saved = read_file(str(out / "model_final.pth"))
    assert saved["iteration"] == steps - 1
    state = {"seconds": 18.0, "used": 12.0, "place": 1.0}
    assert saved["trainer"]["hooks"]["TimeBudget"] == state
    rate = saved["trainer"]["optimizer"]["param_groups"][0]
    assert rate["lr"] == pytest.approx(0.05 * rate["initial_lr"])

    timed_training.now = 100.0
    train(config("train.minutes=0.6", *options), resume=True)  # twice the time
    again = read_file(str(out / "model_final.pth"))
    assert again["trainer"]["hooks"]["TimeBudget"]["used"] == pytest.approx(30, abs=2)
    assert again["iteration"] == pytest.approx(steps - 1 + 9, abs=1)

    timed_training.now = 200.0
    caplog.clear()
    train(config("train.minutes=0.6", *options), resume=True)
    assert "No step left to do" in caplog.text and timed_training.now <= 202.0


@pytest.mark.slow
def test_a_training_ends_in_time(config):
    """By a real clock. Tests beside it make steps of 30 ms stall for seconds: it may end early."""
    begin = time.monotonic()
    train(config("train.minutes=0.5", "train.eval_period=12320", "train.checkpointer.period=6160"))
    assert 15 < time.monotonic() - begin < 33


def test_a_rehearsal_changes_nothing(config):
    cfg = config()
    model, loader = build_model(cfg).train(), instantiate(cfg.dataloader.train)
    before = {name: x.clone() for name, x in model.state_dict().items()}
    loader.start_at(0)
    first = next(iter(loader))
    costs = length.rehearse(model, loader, Evaluation(cfg), iteration=0, amp=None)
    assert min(costs.step, costs.early_step) > 0
    assert costs.early_until == 2 and costs.evaluation > 1
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    assert model.training and all(x.grad is None for x in model.parameters())
    again = next(iter(loader))
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(first, again))
    late = length.rehearse(model, loader, Evaluation(cfg), iteration=2, amp=None)
    assert late.early_step == late.step


@pytest.mark.slow
@pytest.mark.skipif(not dist.is_gloo_available(), reason="torch has no Gloo here")
def test_ranks_end_together(shapes_overrides, tmp_path):
    options = ["train.minutes=0.4", "train.eval_period=0", f"train.output_dir={tmp_path}"]
    settings = [x for x in OVERRIDES if not x.startswith("train.max_iter=")]
    done = torchrun(2, *settings, *shapes_overrides, *options)
    done.check()
    saved = read_file(str(tmp_path / "model_final.pth"))
    assert f"{saved['iteration'] + 1} steps in" in done.output
    assert saved["trainer"]["hooks"]["TimeBudget"]["place"] == 1.0
