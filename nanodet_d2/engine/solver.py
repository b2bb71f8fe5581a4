"""Optimiser and learning-rate schedule for lazy configs."""

from __future__ import annotations

import logging
from typing import Any, Callable

import torch
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import CosineParamScheduler
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

logger = logging.getLogger(__name__)


def build_optimizer(
    params: Any,
    *,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW,
    clip_grad_norm: float | None = None,
    **arguments: Any,
) -> torch.optim.Optimizer:
    """An optimiser that clips the total gradient norm before each step.

    The clipping is part of the optimiser, so that it also happens under detectron2's own training
    script. Nothing in it waits for the device.

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
            norm = norm / getattr(self, "grad_scale", 1.0)
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
