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
    With ``window`` it counts ``1 - (1 - 1 / it) ** (1 / window)``: the average reaches back that
    share of the training so far, however many steps, images or minutes it has (Karras et al. 2024,
    "Analyzing and Improving the Training Dynamics of Diffusion Models", section 3.1).

    Args:
        model: the model to follow, without a distributed wrapper.
        decay: of the average, once ``it`` is far beyond ``warmup``.
        warmup: time constant in steps.
        window: share of the training so far, in place of decay and warmup; 0.1 is its last tenth.
        start_share: weight of the initial weights in what is averaged: 0.25 averages 0.25 * start
            + 0.75 * model. Fine-tuned weights that are mixed with their start forget less of what
            they were made for (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models",
            section 3).

    Raises:
        ValueError: for a decay or a share outside [0, 1), or a window that is not above 0.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        decay: float = 0.9998,
        warmup: float = 2000.0,
        start_share: float = 0.0,
        window: float | None = None,
    ):
        if window is not None and not 0 < window <= 1:
            raise ValueError(f"EMA window {window}; allowed: 0 < window <= 1")
        for name, value in (("decay", decay), ("start_share", start_share)):
            if not 0 <= value < 1:
                raise ValueError(f"EMA {name} {value}; allowed: 0 <= {name} < 1")
        self.model = model
        self.decay = decay
        self.warmup = warmup
        self.start_share = start_share
        self.window = window
        self.reset()

    def reset(self) -> None:
        """Start again from the model's present state."""
        self._state = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self._start = {k: v.clone() for k, v in self._state.items()} if self.start_share else {}
        # Lists of tensors, all changed in place, so that an update is one operator or two.
        model = self.model.state_dict()
        averaged = [name for name, x in model.items() if x.is_floating_point()]
        counters = [name for name in model if name not in set(averaged)]
        self._averages = [self._state[name] for name in averaged]
        self._values = [model[name] for name in averaged]
        self._starts = [self._start[name] for name in averaged if self._start]
        self._counters = [self._state[name] for name in counters]
        self._counts = [model[name] for name in counters]

    def new_value_weight(self, iteration: int) -> float:
        """Weight of the model's state in the average after step ``iteration`` (from 1)."""
        if self.window is not None:
            return 1 - (1 - 1 / max(iteration, 1)) ** (1 / self.window)
        return 1 - self.decay * (1 - math.exp(-(1 + iteration) / self.warmup))

    @torch.no_grad()
    def update(self, iteration: int) -> None:
        """Take the model's state after step ``iteration`` (from 1) into the average."""
        values = self._values
        if self._starts:
            values = list(torch._foreach_lerp(values, self._starts, self.start_share))
        torch._foreach_lerp_(self._averages, values, self.new_value_weight(iteration))

    @contextlib.contextmanager
    def applied(self) -> Iterator[nn.Module]:
        """The model with the averaged state in place of its own, which comes back afterwards."""
        own = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.model.load_state_dict(self.state_dict())
        try:
            yield self.model
        finally:
            self.model.load_state_dict(own)

    def state_dict(self) -> dict[str, Tensor]:
        """The averages; counters, which have no meaningful average, are the model's."""
        if self._counters:
            torch._foreach_copy_(self._counters, self._counts)
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
