"""Exponential moving average of a model's parameters and buffers."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import torch
from detectron2.engine import HookBase
from torch import Tensor, nn


class ModelEMA:
    """The averaged state of a model, on the model's device.

    After training step ``it`` (1 for the first) the new value counts with weight
    ``1 - decay * (1 - exp(-(1 + it) / warmup))``, so that early averages follow the model closely.

    Args:
        model: the model to follow, without a distributed wrapper.
        decay: of the average, once ``it`` is far beyond ``warmup``.
        warmup: time constant in steps.
        start_share: weight of the initial weights in what is averaged: 0.25 averages 0.25 * start
            + 0.75 * model. Fine-tuned weights that are mixed with their start forget less of what
            they were made for (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models",
            section 3).

    Raises:
        ValueError: for a decay or a share outside [0, 1).
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        decay: float = 0.9998,
        warmup: float = 2000.0,
        start_share: float = 0.0,
    ):
        for name, value in (("decay", decay), ("start_share", start_share)):
            if not 0 <= value < 1:
                raise ValueError(f"EMA {name} {value}; allowed: 0 <= {name} < 1")
        self.model = model
        self.decay = decay
        self.warmup = warmup
        self.start_share = start_share
        self.reset()

    def reset(self) -> None:
        """Start again from the model's present state."""
        self._state = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self._start = {k: v.clone() for k, v in self._state.items()} if self.start_share else {}

    def new_value_weight(self, iteration: int) -> float:
        """Weight of the model's state in the average after step ``iteration`` (from 1)."""
        return 1 - self.decay * (1 - math.exp(-(1 + iteration) / self.warmup))

    @torch.no_grad()
    def update(self, iteration: int) -> None:
        """Take the model's state after step ``iteration`` (from 1) into the average."""
        averaged: list[Tensor] = []
        current: list[Tensor] = []
        for name, value in self.model.state_dict().items():
            if value.is_floating_point():
                averaged.append(self._state[name])
                current.append(self._with_start(name, value))
            else:
                self._state[name].copy_(value)  # counters have no meaningful average
        torch._foreach_lerp_(averaged, current, self.new_value_weight(iteration))

    @contextlib.contextmanager
    def applied(self) -> Iterator[nn.Module]:
        """The model with the averaged state in place of its own, which comes back afterwards."""
        own = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.model.load_state_dict(self._state)
        try:
            yield self.model
        finally:
            self.model.load_state_dict(own)

    def _with_start(self, name: str, value: Tensor) -> Tensor:
        return torch.lerp(value, self._start[name], self.start_share) if self._start else value

    def state_dict(self) -> dict[str, Tensor]:
        return self._state

    def load_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        for name, value in state_dict.items():
            self._state[name].copy_(value)


class StartOfEMA:
    """Saves and restores the weights that ``start_share`` mixes in, which a resume needs."""

    def __init__(self, ema: ModelEMA):
        self.ema = ema

    def state_dict(self) -> dict[str, Tensor]:
        return self.ema._start

    def load_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        for name, value in state_dict.items():
            self.ema._start[name].copy_(value)


class EMAHook(HookBase):
    """Update the average after every step; place it before the hooks that save or evaluate."""

    def __init__(self, ema: ModelEMA):
        self.ema = ema

    def after_step(self) -> None:
        self.ema.update(self.trainer.iter + 1)
