"""What a training leaves behind when it does not reach its last step."""

from __future__ import annotations

import copy
import logging
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import Tensor

from nanodet_d2.checkpoint import SafeCheckpointer

logger = logging.getLogger(__name__)


class EarlyStop(BaseException):
    """Ends a training on purpose; no ``Exception``, which the training would report as an error."""


class LastGood(HookBase):
    """Keeps the last state in which every number was finite, as often as the losses are read.

    Weights, averaged weights, statistics of batch norms and the optimiser's moments are looked at:
    statistics are not used in training, so that no loss would tell. The copy lies on the device,
    and takes four times the weights with AdamW and averages.

    Place it after the hooks that change the state in a step. Needed on every rank.

    Args:
        checkpointer: of what is to be kept.

    Attributes:
        content: of the checkpoint; None before the first reading.
        iteration: it is of.

    Raises:
        FloatingPointError: after a step, on all ranks, with the names of what is not finite.
    """

    def __init__(self, checkpointer: SafeCheckpointer):
        self.checkpointer = checkpointer
        self.content: dict[str, Any] | None = None
        self.iteration: int | None = None

    def after_step(self) -> None:
        if not self.trainer.is_reading_step:
            return
        content = self.checkpointer.content()
        tensors = dict(_float_tensors(content))
        broken = [] if _all_finite(list(tensors.values())) else _not_finite(tensors)
        for rank, names in enumerate(comm.all_gather(broken)):
            if names:
                more = f" and {len(names) - 3} more" if len(names) > 3 else ""
                raise FloatingPointError(
                    f"not finite after iteration {self.trainer.iter}, rank {rank}: "
                    f"{', '.join(names[:3])}{more}"
                )
        self.content, self.iteration = _copied(content), self.trainer.iter


class InterruptCheckpointer(HookBase):
    """Save what was trained when the training ends early: by an error, Ctrl-C or SIGTERM.

    Place it after the hooks that belong to a step, and before those that may fail.

    Args:
        checkpointer: writes the state after the last finished step.
        last_good: knows what to write where that is not to be had: numbers are not finite, or the
            weights were about to move.
    """

    def __init__(self, checkpointer: SafeCheckpointer, last_good: LastGood):
        self.checkpointer = checkpointer
        self.last_good = last_good
        self._last_step: int | None = None
        self._handler: Any = None

    def before_train(self) -> None:
        if threading.current_thread() is threading.main_thread():  # others cannot
            self._handler = signal.signal(signal.SIGTERM, _end)

    def after_step(self) -> None:
        self._last_step = self.trainer.iter

    def after_train(self) -> None:
        try:
            self._save_what_there_is()
        finally:
            if self._handler is not None:
                signal.signal(signal.SIGTERM, self._handler)

    def _save_what_there_is(self) -> None:
        trainer, error = self.trainer, sys.exc_info()[1]
        if trainer.iter >= trainer.max_iter or isinstance(error, EarlyStop):
            return  # finished, or saved already
        content, iteration = self.last_good.content, self.last_good.iteration
        # A step in progress counts for nothing: a checkpoint names the last finished one.
        whole = trainer.iter == self._last_step or trainer.undo_step()
        if whole and not isinstance(error, FloatingPointError):
            if self._last_step is None:
                return  # nothing was done
            iteration = trainer.iter = self._last_step
            content = self.checkpointer.content()
        if content is None or iteration is None:
            logger.warning("Nothing saved: no step is known to have been good.")
        elif comm.is_main_process():
            self._save(content, iteration)

    def _save(self, content: Mapping[str, Any], iteration: int) -> None:
        name = f"model_{iteration:07d}"
        try:
            self.checkpointer.write(name, {**content, "iteration": iteration})
        except Exception:  # the error that ended the training matters more
            logger.exception("Could not save the interrupted training.")
        else:
            logger.warning(
                "Training ended early in iteration %d; saved %s.pth, go on with --resume.",
                self.trainer.iter,
                name,
            )


def _end(number: int, frame: Any) -> None:
    """Unwind the training as Ctrl-C does; once, so that what is saved then is whole."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(128 + number)


def _float_tensors(content: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Tensors of floats in nested dicts and lists, named by their keys."""
    if isinstance(content, Tensor):
        if content.is_floating_point() and content.numel():
            yield name, content
    elif isinstance(content, (Mapping, list, tuple)):
        items = content.items() if isinstance(content, Mapping) else enumerate(content)
        for key, value in items:
            yield from _float_tensors(value, f"{name}.{key}" if name else str(key))


@torch.no_grad()
def _all_finite(tensors: list[Tensor]) -> bool:
    """Reads each device once."""
    by_kind: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for x in tensors:
        by_kind.setdefault((x.device, x.dtype), []).append(x)
    largest = [torch._foreach_norm(group, float("inf")) for group in by_kind.values()]
    return all(bool(torch.stack(group).isfinite().all()) for group in largest)


def _not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    return [name for name, x in tensors.items() if not x.isfinite().all()]


def _copied(content: Any) -> Any:
    if isinstance(content, Tensor):
        return content.detach().clone()
    if isinstance(content, Mapping):
        return {key: _copied(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return type(content)(map(_copied, content))
    return copy.copy(content)
