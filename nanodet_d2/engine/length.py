"""How long a training is: so many iterations, epochs or minutes."""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig, OmegaConf
from torch import nn

from nanodet_d2.config import get_config
from nanodet_d2.layers import KeptBuffers

from .budget import Costs, TimeBudget
from .evaluation import Evaluation

logger = logging.getLogger(__name__)

EVALUATIONS = 10  # in a training by time, where their period is not chosen…
EVALUATIONS_SHARE = 0.1  # …and all of them take no more of it than this
WARMUP_SHARE = 0.1  # of the steps, at most
_REHEARSED = 3  # steps; the first of them warms up


def counts_iterations(cfg: DictConfig) -> bool:
    """Whether ``train.max_iter`` is what counts, and neither minutes nor epochs.

    Raises:
        ValueError: if both are given, or one is not positive.
    """
    given = {
        key: cfg.train.get(key) for key in ("minutes", "epochs") if cfg.train.get(key) is not None
    }
    if len(given) > 1:
        raise ValueError(
            f"train.minutes={given['minutes']:g} and train.epochs={given['epochs']:g}; allowed: "
            "one of them, in place of train.max_iter"
        )
    for key, value in given.items():
        if not value > 0:
            raise ValueError(f"train.{key} {value:g}; allowed: more than 0")
    return not given


def prefer_given_length(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Of ``train.minutes``, ``epochs`` and ``max_iter``, one that was asked for counts, in place.

    A config's own minutes or epochs give way to it.

    Raises:
        ValueError: if several were asked for.
    """
    keys = ("minutes", "epochs", "max_iter")
    given = [
        key
        for key in keys
        if any(re.match(rf"\+{{0,2}}train\.{key}=(?!null$)", x) for x in overrides)
    ]
    if len(given) > 1:
        words = " and ".join(f"train.{key}={cfg.train[key]:g}" for key in given)
        raise ValueError(f"{words}; allowed: one of them")
    if given:
        for key in {"minutes", "epochs"} - set(given):
            cfg.train[key] = None


def settle_length(
    cfg: DictConfig,
    budget: TimeBudget | None,
    model: nn.Module,
    loader: Any,
    evaluation: Evaluation,
    *,
    start_iter: int,
    amp: torch.dtype | None,
) -> None:
    """Set ``train.max_iter`` to the epochs or minutes that are given in its place; see below.

    Args:
        budget: of the minutes.
        model: without a distributed wrapper.
        loader, evaluation: of the training.
        start_iter: first iteration.
        amp: type of mixed precision.
    """
    if cfg.train.get("epochs") is not None:
        epochs_to_iterations(cfg, loader)
    elif budget is not None:
        costs = rehearse(model, loader, evaluation, iteration=start_iter, amp=amp)
        minutes_to_iterations(cfg, budget, costs, start_iter=start_iter)


def steps_per_epoch(loader: Any, batch_size: int) -> float | None:
    """None for a loader that does not tell its data set."""
    try:
        return len(loader.dataset) / batch_size
    except (AttributeError, TypeError):
        return None


def epochs_to_iterations(cfg: DictConfig, loader: Any) -> None:
    """Set ``train.max_iter`` to ``train.epochs`` passes over the loader's data set, in place.

    Raises:
        ValueError: for a loader that does not tell how many images that are.
    """
    batch = cfg.dataloader.train.total_batch_size
    steps = steps_per_epoch(loader, batch)
    if steps is None:
        raise ValueError(
            f"train.epochs={cfg.train.epochs:g}, but {type(loader).__name__} does not tell its "
            "data set's length; allowed: train.max_iter or train.minutes"
        )
    cfg.train.max_iter = max(1, math.ceil(cfg.train.epochs * steps))
    logger.info(
        "train.epochs=%g: %d steps of %d images", cfg.train.epochs, cfg.train.max_iter, batch
    )


def minutes_to_iterations(
    cfg: DictConfig, budget: TimeBudget, costs: Costs, *, start_iter: int
) -> None:
    """Set ``train.max_iter`` to what fits into the budget, in place, and what depends on it.

    Args:
        costs: on this rank; the main one's count.
        start_iter: first iteration.

    Raises:
        ValueError: for a budget in which a new training cannot take a step.
    """
    costs = comm.all_gather(costs)[0]
    max_iter = budget.plan(costs, start_iter=start_iter, period=0)
    if cfg.train.eval_period == get_config("common/train.py").train.eval_period:
        allowed = int(EVALUATIONS_SHARE * budget.seconds / max(costs.evaluation, 1e-6))
        count = min(EVALUATIONS, allowed)
        cfg.train.eval_period = math.ceil(max_iter / count) if count else 0
    max_iter = budget.plan(costs, start_iter=start_iter, period=cfg.train.eval_period)
    if max_iter < 1:
        raise ValueError(
            f"train.minutes={cfg.train.minutes:g}: no time is left for a step of "
            f"{costs.step:.2g} s: the set-up took {budget.used:.1f} s, and the evaluation at the "
            f"end is going to take about {costs.evaluation:.1f} s"
        )
    cfg.train.max_iter = max_iter
    logger.info(
        "train.minutes=%g: about %d steps of %.3g s, evaluations of about %.3g s; %.1f s are used",
        cfg.train.minutes,
        max_iter,
        costs.step,
        costs.evaluation,
        budget.used,
    )
    _shorten_warmup(cfg)


def _shorten_warmup(cfg: DictConfig) -> None:
    longest = max(1, int(WARMUP_SHARE * cfg.train.max_iter))
    warmup = OmegaConf.select(cfg, "lr_multiplier.warmup_iters")
    if warmup is not None and warmup > longest:
        cfg.lr_multiplier.warmup_iters = longest
        logger.info("lr_multiplier.warmup_iters %d -> %d, a tenth of them", warmup, longest)


def rehearse(
    model: nn.Module,
    loader: Any,
    evaluation: Evaluation,
    *,
    iteration: int,
    amp: torch.dtype | None,
) -> Costs:
    """Measure what a training's steps and evaluations take; the model stays as it is.

    Args:
        model: without a distributed wrapper.
        loader: of training batches.
        iteration: at which the training is going to begin.
        amp: type of mixed precision.
    """
    was_training, kept = model.training, KeptBuffers(model)
    kept.keep()
    evaluation_s = evaluation.estimate(model.eval())
    model.train()
    batches = iter(loader)
    last_early = getattr(model, "last_auxiliary_step", None)
    early_until = 0 if last_early is None else last_early + 1
    step = _step_seconds(model, batches, max(iteration, early_until), amp)
    early_step = _step_seconds(model, batches, 0, amp) if iteration < early_until else step
    if hasattr(batches, "close"):
        batches.close()
    kept.restore()
    model.train(was_training)
    return Costs(step, evaluation_s, early_step, early_until)


def _step_seconds(
    model: nn.Module, batches: Iterator[Any], iteration: int, amp: torch.dtype | None
) -> float:
    """Of a step without the optimiser's part. Ranks take as many, since norms may bind them."""
    device = next(model.parameters()).device
    seconds = []
    with EventStorage(iteration):
        for _ in range(_REHEARSED):
            begin = time.perf_counter()
            data = next(batches)  # so far as the step waits for it
            with torch.autocast(device.type, dtype=amp, enabled=amp is not None):
                total = sum(model(data).values())
            total.backward()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - begin)
    model.zero_grad(set_to_none=True)
    return min(seconds[1:])
