"""Optimiser and learning-rate schedule for lazy configs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Callable

import torch
from detectron2.solver import WarmupParamScheduler
from detectron2.solver.build import get_default_optimizer_params
from fvcore.common.param_scheduler import CosineParamScheduler
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

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
    backbone = set(model.backbone.parameters())
    split = []
    for group in groups:
        for inside, factor in ((True, backbone_lr_factor), (False, 1.0)):
            parameters = [p for p in group["params"] if (p in backbone) == inside]
            if parameters:
                split.append({**group, "params": parameters, "lr": group["lr"] * factor})
    return split


def scale_to_batch_size(cfg: DictConfig) -> None:
    """Fit a config's schedule to its batch, in place, if ``train.reference_batch_size`` is set.

    The learning rate grows with the batch, the iterations shrink (Goyal et al. 2017, section 2.1),
    so that as many images are seen; the averaged weights forget as much per image as before
    (Busbridge et al. 2023, "How to Scale Your EMA", section 2). One log line says what became of
    what.
    """
    reference, batch = cfg.train.reference_batch_size, cfg.dataloader.train.total_batch_size
    if not reference or reference == batch:
        return
    factor = batch / reference
    changes = [f"optimizer.lr {cfg.optimizer.lr:g} -> {cfg.optimizer.lr * factor:g}"]
    cfg.optimizer.lr *= factor
    for key in _ITERATIONS:
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


def build_optimizer(
    params: Any,
    *,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW,
    clip_grad_norm: float | None = None,
    **arguments: Any,
) -> torch.optim.Optimizer:
    """An optimiser that clips the total gradient norm before each step.

    The clipping is part of the optimiser, so that it also happens under detectron2's own training
    script. Nothing in it waits for the device. From the first norm on that is not finite, a fused
    optimiser leaves the weights as they are: a trainer that looks at the losses only now and then
    finds those that went wrong.

    Args:
        params: parameters or parameter groups.
        optimizer: its class.
        clip_grad_norm: largest L2 norm over all parameters; no clipping if None.
        arguments: for the class, e.g. ``fused=True``.
    """
    built = optimizer(params, **arguments)
    if clip_grad_norm is not None:
        parameters = [p for group in built.param_groups for p in group["params"]]

        def clip(self: torch.optim.Optimizer, *_: Any) -> None:
            norm = get_total_norm([p.grad for p in parameters if p.grad is not None])
            # A fused optimiser gets the gradients of mixed precision still multiplied by this.
            scale = getattr(self, "grad_scale", None)
            if scale is not None:
                norm = norm / scale
            elif getattr(self, "_step_supports_amp_scaling", False):
                broken = (~norm.isfinite()).float()
                self.found_inf = torch.maximum(getattr(self, "found_inf", broken), broken)
            clip_grads_with_norm_(parameters, clip_grad_norm, norm)

        built.register_step_pre_hook(clip)
    return built


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
    if warmup_iters > max_iter // 2:
        logger.warning(
            "Warm-up of %d iterations is shortened to %d, half of the training.",
            warmup_iters,
            max_iter // 2,
        )
        warmup_iters = max_iter // 2
    return WarmupParamScheduler(
        CosineParamScheduler(1.0, final), warmup_factor, warmup_iters / max_iter
    )
