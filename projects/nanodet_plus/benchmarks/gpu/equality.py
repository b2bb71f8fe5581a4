"""A training step on the device against that on the CPU, and against its own in other ways."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from train_step import CLASSES, make_trainer, take_step

from nanodet_d2.engine.building import build_model

from .report import Row, judged
from .setting import Batch, Setting

# Largest relative difference of a loss, and of the gradients' L2 norm: rounding of float32.
EXACT = (1e-4, 1e-3)
# Of a loss alone, for 8 and for 11 bits. Gradients of fresh weights say nothing at that rounding:
# in float32, weights rounded to bfloat16 move them by more than half of their norm. They are told,
# beside what that rounding does, and have no bar.
HALF = {torch.bfloat16: 5e-2, torch.float16: 1e-2}
STEPS = 5  # of the trainer
DRIFT = 2e-2  # of a loss after so many steps, which feed rounding back into the weights


class Step(NamedTuple):
    """What a forward and a backward pass gave, on the CPU."""

    losses: dict[str, float]
    gradients: Tensor  # of all parameters, float64, one after another


def equal_steps(setting: Setting) -> Iterator[Row]:
    """float32 without TF32 on the device as on the CPU; channels_last; mixed precision."""
    exact_float32()
    batch = setting.batch(setting.sizes.compared)
    there = forward_backward(setting.config("train.device=cpu"), batch)
    here = forward_backward(setting.config(), batch)
    yield compare(f"a step in float32 on {setting.device} as on the CPU", here, there, EXACT)
    plain = forward_backward(setting.config("train.channels_last=false"), batch)
    yield compare("channels_last as without it", here, plain, EXACT)
    for dtype, tolerance in HALF.items():
        if dtype is torch.float16 and not setting.on_gpu:
            continue  # the trainer does not take it there
        half = forward_backward(setting.config(), batch, amp=dtype)
        row = compare(
            f"mixed precision, {_name(dtype)}, as float32", half, here, (tolerance, math.inf)
        )
        moved = gradient_gap(forward_backward(setting.config(), batch, weights=dtype), here)
        text = f"{row.finding}; float32 with rounded weights: {moved:.1e}"
        yield dataclasses.replace(row, finding=text, figures={**row.figures, "rounded": moved})
    yield trained_alike(setting, batch)


def compiled_step(setting: Setting) -> Iterator[Row]:
    """``train.compile`` in float32 as without it."""
    exact_float32()
    batch = setting.batch(setting.sizes.compared)
    eager = forward_backward(setting.config(), batch)
    compiled = forward_backward(setting.config("train.compile.enabled=true"), batch)
    yield compare("torch.compile as without it", compiled, eager, EXACT)


def trained_alike(setting: Setting, batch: Batch) -> Row:
    """The trainer's steps, with clipping, AdamW and averages, on both devices."""
    losses = {device: trainer_losses(setting, batch, device) for device in ("cpu", setting.device)}
    worst = largest_difference(losses[setting.device], losses["cpu"])
    return judged(
        f"{STEPS} steps of the trainer on {setting.device} as on the CPU",
        worst <= DRIFT,
        f"total loss within {worst:.1e} (allowed: {DRIFT:.0e})",
        loss=worst,
    )


def trainer_losses(
    setting: Setting,
    batch: Batch,
    device: str,
    *,
    steps: int = STEPS,
    wrap: Callable[[nn.Module], nn.Module] = lambda model: model,
) -> list[float]:
    """Total loss of each step of freshly made weights, perhaps in a distributed wrapper."""
    torch.manual_seed(0)
    cfg = setting.config(f"train.device={device}")
    trainer = make_trainer(cfg, [batch] * steps, device, detached=False, wrap=wrap)
    totals: list[Tensor] = []
    trainer.model.register_forward_hook(
        lambda module, inputs, losses: totals.append(sum(losses.values()).detach())
    )
    for _ in range(steps):
        take_step(trainer)
    return [float(x) for x in totals]


def largest_difference(found: Sequence[float], expected: Sequence[float]) -> float:
    """Relative to what is expected; NaN if one is."""
    gaps = [abs(a - b) / max(abs(b), 1e-6) for a, b in zip(found, expected)]
    return float(torch.tensor(gaps, dtype=torch.float64).max())  # Python's max may pass over a NaN


def forward_backward(
    cfg: Any,
    batch: Batch,
    *,
    amp: torch.dtype | None = None,
    weights: torch.dtype = torch.float32,
) -> Step:
    """Losses and gradients of freshly made weights, the same each time, with the whole branch.

    ``amp`` is the type that operators compute in, ``weights`` the one that weights are rounded to.
    """
    torch.manual_seed(0)
    cfg.model.head.num_classes = CLASSES
    model = build_model(cfg).train()
    for parameter in model.parameters():
        parameter.data = parameter.data.to(weights).float()
    if cfg.train.compile.enabled:
        model.compile(**cfg.train.compile.settings)
    context = contextlib.nullcontext() if amp is None else torch.autocast(cfg.train.device, amp)
    with context:
        losses = model(batch)
    sum(losses.values()).backward()
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    return Step(
        {name: float(x.detach()) for name, x in losses.items()},
        torch.cat([x.flatten().double().cpu() for x in gradients]),
    )


def compare(name: str, found: Step, expected: Step, tolerance: tuple[float, float]) -> Row:
    """Judge a step by the largest relative difference of its losses, and by its gradients'."""
    assert found.losses.keys() == expected.losses.keys()
    names = list(expected.losses)
    loss = largest_difference([found.losses[k] for k in names], list(expected.losses.values()))
    gradients = gradient_gap(found, expected)
    bar = f"{tolerance[1]:.0e}" if math.isfinite(tolerance[1]) else "no bar"
    return judged(
        name,
        loss <= tolerance[0] and gradients <= tolerance[1],  # neither holds for a NaN
        f"losses within {loss:.1e} (allowed: {tolerance[0]:.0e}), gradients within "
        f"{gradients:.1e} of their norm ({bar})",
        losses=loss,
        gradients=gradients,
    )


def gradient_gap(found: Step, expected: Step) -> float:
    """Relative to the norm of what is expected."""
    return float((found.gradients - expected.gradients).norm() / expected.gradients.norm())


def exact_float32() -> None:
    """No TF32, which GPUs since Ampere take for float32."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
