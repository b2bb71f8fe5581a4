"""What a training writes while it runs: detectron2's files, and a console line of its own."""

from __future__ import annotations

import datetime
import logging

import torch
from detectron2.engine import TrainerBase, default_writers
from detectron2.utils.events import (
    CommonMetricPrinter,
    EventStorage,
    EventWriter,
    get_event_storage,
)

from .budget import TimeBudget

WINDOW = 20  # steps that detectron2's writers smooth over


def build_writers(
    output_dir: str,
    trainer: TrainerBase,
    *,
    steps_per_epoch: float | None = None,
    budget: TimeBudget | None = None,
) -> list[EventWriter]:
    """detectron2's writers with another console line.

    Args:
        output_dir: of the files.
        trainer: tells how far the training has come.
        steps_per_epoch: None if it is not known.
        budget: of a training by time.
    """
    others = [x for x in default_writers(output_dir) if not _is_printer(x)]
    return [MetricPrinter(trainer, steps_per_epoch, budget), *others]


class MetricPrinter(CommonMetricPrinter):
    """detectron2's line, with epochs, the loader's share of the time, and present losses only.

    detectron2 goes on printing the last value of whatever was logged once.
    """

    def __init__(
        self, trainer: TrainerBase, steps_per_epoch: float | None, budget: TimeBudget | None
    ):
        super().__init__(None, WINDOW)
        self.trainer = trainer
        self.steps_per_epoch = steps_per_epoch
        self.budget = budget
        self.logger = logging.getLogger(__name__)

    def write(self) -> None:
        storage = get_event_storage()
        self._max_iter = self.trainer.max_iter  # a training by time moves it
        if storage.iter == self._max_iter:  # called once more after the last step
            return
        eta = self._get_eta(storage)
        parts = [f"eta: {eta}"] if eta else []
        parts.append(f"iter: {storage.iter}")
        steps = self.steps_per_epoch
        if steps:
            done = (storage.iter + 1) / steps
            parts.append(f"epoch: {done:.1f}/{self.trainer.max_iter / steps:.1f}")
        parts += self._losses(storage)
        share = loader_share(storage, WINDOW)
        if share is not None:
            step = storage.history("time").avg(WINDOW)
            parts.append(f"time: {step:.4f} s ({share:.0%} waiting for data)")
        parts += [f"lr: {x[0]:.5g}" for name, x in storage.latest().items() if name == "lr"]
        if torch.cuda.is_available():
            parts.append(f"max_mem: {torch.cuda.max_memory_allocated() / 2**20:.0f}M")
        self.logger.info("  ".join(parts))

    def _get_eta(self, storage: EventStorage) -> str | None:
        if self.budget is None:
            return super()._get_eta(storage)
        storage.put_scalar("eta_seconds", self.budget.left, smoothing_hint=False)
        return str(datetime.timedelta(seconds=max(int(self.budget.left), 0)))

    def _losses(self, storage: EventStorage) -> list[str]:
        smooth = present_losses(storage)
        newest = [
            name
            for name, (_, iteration) in storage.latest().items()
            if "loss" in name and name not in smooth and iteration == storage.iter
        ]
        return [f"{x}: {storage.history(x).median(WINDOW):.4g}" for x in smooth] + [
            f"{x}: {storage.history(x).latest():.4g}" for x in newest
        ]


def present_losses(storage: EventStorage) -> list[str]:
    """Names of the training's losses in its newest step.

    The storage also has losses that have left the model, and those of the validation set, which are
    not smoothed.
    """
    latest, smoothed = storage.latest(), storage.smoothing_hints()
    newest = latest["total_loss"][1] if "total_loss" in latest else 0
    return [
        name
        for name, (_, iteration) in latest.items()
        if "loss" in name and smoothed[name] and iteration >= newest
    ]


def loader_share(storage: EventStorage, window: int) -> float | None:
    """Share of the last steps' time that went into waiting for data; None before the first ones."""
    histories = storage.histories()
    if "time" not in histories or "data_time" not in histories:
        return None
    step = histories["time"].avg(window)
    return min(histories["data_time"].avg(window) / step, 1.0) if step > 0 else None


def _is_printer(writer: EventWriter) -> bool:
    return isinstance(writer, CommonMetricPrinter)
