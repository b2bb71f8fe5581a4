"""Optimiser and learning-rate schedule for lazy configs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Callable

import torch
from detectron2.solver import WarmupParamScheduler
from detectron2.solver.build import get_default_optimizer_params
from fvcore.common.param_scheduler import (
    CosineParamScheduler,
    MultiStepParamScheduler,
    ParamScheduler,
)
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_

from nanodet_d2.config import get_config

logger = logging.getLogger(__name__)

_ITERATIONS = (  # config keys that count them
    "train.max_iter",
    "train.eval_period",
    "train.checkpointer.period",
    "lr_multiplier.warmup_iters",
    "train.ema.settings.warmup",
    "model.aux_detach_iter",
    "dataloader.train.close_after",
)


def parameter_groups(
    model: nn.Module,
    *,
    base_lr: float,
    backbone_lr_factor: float = 1.0,
    weight_decay_norm: float | None = None,
    weight_decay_bias: float | None = None,
    overrides: Mapping[str, Mapping[str, float]] | None = None,
) -> list[dict[str, Any]]:
    """As few groups as there are different rates and decays; frozen parameters are left out.

    Args:
        model: with a ``backbone``, if that has a factor of its own.
        base_lr: learning rate of all others.
        backbone_lr_factor: of the backbone's learning rate.
        weight_decay_norm, weight_decay_bias: of norms and biases; the optimiser's if None.
        overrides: parameter name, e.g. "bias" -> its ``lr`` or ``weight_decay``.
    """
    groups = get_default_optimizer_params(
        model,
        base_lr=base_lr,
        weight_decay_norm=weight_decay_norm,
        weight_decay_bias=weight_decay_bias,
        overrides={name: dict(x) for name, x in (overrides or {}).items()},
    )
    if backbone_lr_factor == 1:
        return groups
    backbone = set(model.get_submodule("backbone").parameters())
    split = []
    for group in groups:
        for inside, factor in ((True, backbone_lr_factor), (False, 1.0)):
            parameters = [p for p in group["params"] if (p in backbone) == inside]
            if parameters:
                split.append({**group, "params": parameters, "lr": group["lr"] * factor})
    return split


def fit_periods(cfg: DictConfig) -> None:
    """Shorten the shipped periods to a tenth of the training, in place; chosen ones stay.

    Else a training that is shorter than COCO's would evaluate and save nothing before its end.
    """
    longest = max(1, cfg.train.max_iter // 10)
    changes = []
    for key in _shipped_periods(cfg):
        value = OmegaConf.select(cfg, key)
        if value > longest:
            OmegaConf.update(cfg, key, longest)
            changes.append(f"{key} {value} -> {longest}")
    if changes:
        logger.info("A training of %d steps: %s", cfg.train.max_iter, ", ".join(changes))


def _shipped_periods(cfg: DictConfig) -> list[str]:
    """Keys of the periods that are as they were shipped, and so not chosen."""
    shipped = get_config("common/train.py")
    keys = ("train.eval_period", "train.checkpointer.period")
    return [x for x in keys if OmegaConf.select(cfg, x) == OmegaConf.select(shipped, x)]


def scale_to_batch_size(cfg: DictConfig, *, known_length: bool = True) -> None:
    """Fit a config's schedule to its batch, in place, if ``train.reference_batch_size`` is set.

    The learning rate grows with the batch, the iterations shrink (Goyal et al. 2017, section 2.1),
    so that as many images are seen; the averaged weights forget as much per image as before
    (Busbridge et al. 2023, "How to Scale Your EMA", section 2). One log line says what became of
    what.

    Args:
        known_length: else the training's iterations are only going to be known, and the periods
            fitted to them, when it starts.
    """
    reference, batch = cfg.train.reference_batch_size, cfg.dataloader.train.total_batch_size
    if not reference:
        _say_whose_rate_it_is(cfg, batch)
    if not reference or reference == batch:
        return
    factor = batch / reference
    changes = [f"optimizer.lr {cfg.optimizer.lr:g} -> {cfg.optimizer.lr * factor:g}"]
    cfg.optimizer.lr *= factor
    later = [] if known_length else ["train.max_iter", *_shipped_periods(cfg)]
    for key in _ITERATIONS:
        if key in later:
            continue
        before = OmegaConf.select(cfg, key)
        if before and before > 0:
            after = max(1, round(before / factor))
            OmegaConf.update(cfg, key, after)
            changes.append(f"{key} {before} -> {after}")
    decay = OmegaConf.select(cfg, "train.ema.settings.decay")
    if decay:
        cfg.train.ema.settings.decay = decay**factor
        changes.append(f"train.ema.settings.decay {decay:g} -> {decay**factor:g}")
    cfg.train.reference_batch_size = batch  # the saved config is not scaled again
    logger.info("Batch of %d in place of %d: %s", batch, reference, ", ".join(changes))


def _say_whose_rate_it_is(cfg: DictConfig, batch: int) -> None:
    usual = get_config("common/data/coco.py").dataloader.train.total_batch_size
    rate = get_config("common/optim.py").AdamW.lr
    if batch != usual and cfg.optimizer.get("lr") == rate:
        logger.info(
            "optimizer.lr is %g, which was chosen for a batch of %d, with a batch of %d. To fit it "
            "and the schedule: train.reference_batch_size=%d",
            rate,
            usual,
            batch,
            usual,
        )


def build_optimizer(
    params: Any,
    *,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW,
    clip_grad_norm: float | None = None,
    **arguments: Any,
) -> torch.optim.Optimizer:
    """An optimiser with a :class:`GradientGuard`, as its attribute ``guard``.

    The guard is part of the optimiser, so that it also works under detectron2's own training
    script.

    Args:
        params: parameters or parameter groups.
        optimizer: its class.
        clip_grad_norm: largest L2 norm over all parameters; no clipping if None.
        arguments: for the class, e.g. ``fused=True``.
    """
    built: Any = optimizer(params, **arguments)
    built.guard = GradientGuard(built, max_norm=clip_grad_norm)
    built.register_step_pre_hook(built.guard.before_step)
    return built


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load an optimiser's state, but for the settings that its config has changed since.

    torch's own method brings back the settings as well: a new ``optimizer.lr`` would do nothing.
    What has changed is logged.
    """
    wanted = [
        {k: x for k, x in group.items() if k not in ("params", "initial_lr")}
        for group in optimizer.param_groups
    ]
    optimizer.load_state_dict(state)
    for group, settings in zip(optimizer.param_groups, wanted):
        for name, value in settings.items():
            # A schedule multiplies this one, of which the other is a trace.
            key = "initial_lr" if name == "lr" and "initial_lr" in group else name
            before = group.get(key)
            # Pairs come back as lists.
            if before == value or (
                before and isinstance(value, Sequence) and [*before] == [*value]
            ):
                continue
            logger.warning("optimizer.%s was %s and is %s from here on", name, before, value)
            group[key] = value


class GradientGuard:
    """Clips gradients, and has a fused optimiser leave out steps whose gradients are not finite.

    Nothing in it waits for the device. An optimiser that is not fused takes such steps, and a
    trainer has to find the weights that came of it.

    Args:
        optimizer: whose gradients these are.
        max_norm: total norm that they are clipped to; no clipping if None.

    Attributes:
        skipped: steps left out so far, on the device.
        in_a_row: of them, those since the last step that was taken.
        frozen: if set, a flag on the device; where it is true, all steps are left out, uncounted.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, *, max_norm: float | None):
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.max_norm = max_norm
        self.skipped: int | Tensor = 0
        self.in_a_row: int | Tensor = 0
        self.frozen: Tensor | None = None

    def before_step(self, optimizer: Any, *_: Any) -> None:
        """Look at the gradients and clip them; a pre-hook of the optimiser's step."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        if not gradients:
            return
        # As torch's get_total_norm, which calls an operator more for each of them.
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        # A fused optimiser gets the gradients of mixed precision still multiplied by this.
        scale = getattr(optimizer, "grad_scale", None)
        if scale is not None:
            norm = norm / scale
        if getattr(optimizer, "_step_supports_amp_scaling", False):
            broken = ~norm.isfinite()
            self.skipped = self.skipped + broken
            self.in_a_row = (self.in_a_row + 1) * broken
            leave_out = (broken if self.frozen is None else broken | self.frozen).float()
            # Of this step alone: the attribute stays on the optimiser, except with a scaler.
            optimizer.found_inf = (
                leave_out if scale is None else torch.maximum(optimizer.found_inf, leave_out)
            )
        if self.max_norm is not None:
            clip_grads_with_norm_(self.parameters, self.max_norm, norm)


def warmup_cosine(
    *, max_iter: int, warmup_iters: int = 500, warmup_factor: float = 1e-4, final: float = 0.05
) -> WarmupParamScheduler:
    """Linear warm-up, then a half cosine, as multiples of the base learning rate.

    The reference steps its cosine once per epoch; this one goes on with every iteration.

    Args:
        max_iter: iterations of the whole training.
        warmup_iters: of them, the warm-up; at most half of the training.
        warmup_factor: first multiple.
        final: last multiple.
    """
    return _warm_up(CosineParamScheduler(1.0, final), max_iter, warmup_iters, warmup_factor)


def warmup_multistep(
    *,
    max_iter: int,
    milestones: Sequence[float],
    gamma: float = 0.1,
    warmup_iters: int = 500,
    warmup_factor: float = 0.1,
) -> WarmupParamScheduler:
    """Linear warm-up, then steps downwards, as multiples of the base learning rate.

    Args:
        max_iter: iterations of the whole training.
        milestones: shares of the training after which the rate falls.
        gamma: what it is multiplied by each time.
        warmup_iters: of the iterations, the warm-up; at most half of the training.
        warmup_factor: first multiple.

    Raises:
        ValueError: for milestones that do not rise between 0 and 1.
    """
    if not all(a < b for a, b in zip([0.0, *milestones], [*milestones, 1.0])):
        raise ValueError(f"milestones {list(milestones)}; allowed: shares that rise from 0 to 1")
    updates = max(max_iter, 10_000)  # so that milestones do not meet in a short training
    steps = MultiStepParamScheduler(
        values=[gamma**i for i in range(len(milestones) + 1)],
        milestones=[round(share * updates) for share in milestones],
        num_updates=updates,
    )
    return _warm_up(steps, max_iter, warmup_iters, warmup_factor)


def _warm_up(
    scheduler: ParamScheduler, max_iter: int, warmup_iters: int, warmup_factor: float
) -> WarmupParamScheduler:
    if warmup_iters > max_iter // 2:
        logger.warning(
            "Warm-up of %d iterations is shortened to %d, half of the training.",
            warmup_iters,
            max_iter // 2,
        )
        warmup_iters = max_iter // 2
    return WarmupParamScheduler(scheduler, warmup_factor, warmup_iters / max_iter)
