"""detectron2's training step, without waiting for the device in each of them."""

from __future__ import annotations

import contextlib
import logging
import statistics
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, get_event_storage
from torch import Tensor, nn

from nanodet_d2.layers import KeptBuffers

from .loop import Loop
from .nonfinite import StepLosses, save_report
from .solver import GradientGuard, load_optimizer
from .writers import WINDOW, present_losses

logger = logging.getLogger(__name__)

MAX_SKIPPED = 20  # steps in a row whose gradients are not finite; a scaled loss halves in each


class Trainer(Loop):
    """Like detectron2's ``SimpleTrainer``, but reads its losses once per logging period.

    detectron2's own reads each of them in every step, and gathers them over the ranks. What is
    logged is the same: each loss of each iteration, mean over the ranks.

    Args:
        model, optimizer: as in detectron2's trainers.
        data_loader: endless; with a method ``start_at(iteration)`` a resumed training gets the
            batches that it would have got next.
        log_period: steps from one reading to the next.
        save_period: steps from one checkpoint to the next; the losses are read before each.
        amp: type of mixed precision, None for none. float16 comes with a scaled loss, on CUDA only:
            steps whose gradients overflow are left out and counted, as ``amp_overflows``; a loss
            that is not finite ends the training all the same, because no smaller scale would
            change it.
        report_dir: where a loss that is not finite is reported, with what it takes to see it again.
        seed: whatever is random in the model's step k follows from seed, rank and k.
        batch_size: of all ranks, to be named when a training is resumed with another; 0 if unknown.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Any,
        optimizer: torch.optim.Optimizer,
        *,
        log_period: int = 1,
        save_period: int = 0,
        amp: torch.dtype | None = None,
        report_dir: str | None = None,
        seed: int = 0,
        batch_size: int = 0,
    ):
        super().__init__()
        model.train()
        self.model = model
        self.data_loader = data_loader
        self.optimizer = optimizer
        self.read_periods = [period for period in (log_period, save_period) if period > 0]
        self.report_dir = report_dir
        self.seed = seed
        self.batch_size = batch_size
        self.amp_overflows = 0
        self.skipped_steps = 0
        self.amp = amp
        self.grad_scaler = torch.amp.GradScaler("cuda") if amp is torch.float16 else None
        self._overflows: int | Tensor = 0  # on the device
        self._broken: bool | Tensor = False  # on the device: a loss was not finite
        self._batches: Iterator[Any] = iter(())
        self._kept_buffers: KeptBuffers | None = None
        self._weights_kept = True  # since the beginning of the step in progress
        self._unread: list[tuple[int, list[str], dict[str, Tensor]]] = []  # with image files
        self._resumed_losses: dict[str, list[tuple[int, float]]] = {}

    def train(self, start_iter: int, max_iter: int) -> None:
        if start_iter < max_iter:
            super().train(start_iter, max_iter)
            return
        # Killed after its last step: the final evaluation may still be missing.
        self.iter = self.start_iter = self.max_iter = max_iter
        with EventStorage(max_iter) as self.storage:
            super().before_train()
            self.after_train()

    def before_train(self) -> None:
        if hasattr(self.data_loader, "start_at"):
            self.data_loader.start_at(self.start_iter)
        self._restore_losses()
        self._batches = iter(self.data_loader)
        super().before_train()

    def after_train(self) -> None:
        """End the loader's workers first: the garbage collector would do it in 5 seconds each."""
        if hasattr(self._batches, "close"):
            self._batches.close()
        super().after_train()

    def run_step(self) -> None:
        """One step. Raises ``FloatingPointError`` at the end of a period with a bad loss in it."""
        assert self.model.training, "the model was changed to eval mode"
        self._begin_step()
        start = time.perf_counter()
        data = next(self._batches)
        data_time = time.perf_counter() - start
        state = np.random.SeedSequence((self.seed, comm.get_rank(), self.iter)).generate_state(1)
        torch.manual_seed(int(state[0]))

        with self._autocast():
            losses = self.model(data)
        total = sum(losses.values())
        self._freeze_if_broken(total.detach())
        self.optimizer.zero_grad(set_to_none=True)
        if self.grad_scaler is None:
            total.backward()
            self._weights_kept = False
            self.optimizer.step()
        else:
            self.grad_scaler.scale(total).backward()
            self._weights_kept = False
            self.grad_scaler.step(self.optimizer)
            self._update_scale(self.grad_scaler)
        files = [str(x.get("file_name", "")) for x in data if isinstance(x, Mapping)]
        self._unread.append((self.iter, files, {k: v.detach() for k, v in losses.items()}))
        get_event_storage().put_scalar("data_time", data_time)

    def _begin_step(self) -> None:
        """Keep what the forward pass changes: the statistics of batch norms."""
        if self._kept_buffers is None:
            self._kept_buffers = KeptBuffers(self.model)
        self._kept_buffers.keep()
        self._weights_kept = True

    def undo_step(self) -> bool:
        """Take the model back to before the step in progress; False if its weights have moved."""
        if self._weights_kept and self._kept_buffers is not None:
            self._kept_buffers.restore()
        return self._weights_kept

    def _autocast(self) -> contextlib.AbstractContextManager:
        if self.amp is None:
            return contextlib.nullcontext()
        device = next(self.model.parameters()).device
        return torch.autocast(device.type, dtype=self.amp)

    def _freeze_if_broken(self, total: Tensor) -> None:
        """Keep the weights from the first loss on that is not finite.

        The next reading ends the training, and reports the step with its weights.
        """
        self._broken = ~total.isfinite() | self._broken
        if self._guard is not None:
            self._guard.frozen = self._broken

    @property
    def _guard(self) -> GradientGuard | None:
        return getattr(self.optimizer, "guard", None)  # of ``build_optimizer``

    def _update_scale(self, scaler: torch.amp.GradScaler) -> None:
        """Count an overflow without waiting for the device, as ``get_scale`` would."""
        assert scaler._scale is not None, "nothing was scaled"
        before = scaler._scale.clone()
        scaler.update()
        self._overflows = self._overflows + (scaler._scale < before)

    def after_step(self) -> None:
        """Read the losses before the hooks that write them."""
        if self.is_reading_step:
            self._read_losses()
        super().after_step()

    @property
    def is_reading_step(self) -> bool:
        """Whether the device is read after the step in progress."""
        done = self.iter + 1
        return done >= self.max_iter or any(done % period == 0 for period in self.read_periods)

    def _read_losses(self) -> None:
        """Hand the losses since the last reading to detectron2's event storage.

        The only place that waits for the device.
        """
        unread, self._unread = self._unread, []
        device = next(iter(unread[-1][2].values())).device  # resumed ones lie on the CPU
        terms = [x.to(device) for *_, losses in unread for x in losses.values()]
        values = iter(torch.stack(terms).tolist())
        read = [
            StepLosses(iteration, {k: next(values) for k in losses}, files)
            for iteration, files, losses in unread
        ]
        ranks = comm.all_gather(read)
        broken = [
            (step.iteration, rank, i)
            for rank, steps in enumerate(ranks)
            for i, step in enumerate(steps)
            if not step.finite
        ]
        if broken:
            _, rank, i = min(broken)
            self._report(ranks[rank][i], rank)
        skipped = self._count_skipped()
        if not comm.is_main_process():
            return
        storage = get_event_storage()
        storage.put_scalars(smoothing_hint=False, **skipped)
        for same_iteration in zip(*ranks):
            storage.iter = same_iteration[0].iteration
            names = same_iteration[0].losses
            means = {k: statistics.fmean(x.losses[k] for x in same_iteration) for k in names}
            storage.put_scalars(total_loss=sum(means.values()), **means)
        storage.iter = self.iter
        self._log_overflows(storage)

    def _count_skipped(self) -> dict[str, int]:
        """Steps that were left out, since their gradients were not finite.

        With a scaled loss these are overflows, which are expected and counted by themselves.

        Raises:
            FloatingPointError: if there were too many in a row to wait for another.
        """
        if self._guard is None:
            return {}
        skipped, in_a_row = int(self._guard.skipped), int(self._guard.in_a_row)
        new, self.skipped_steps = skipped - self.skipped_steps, skipped
        if in_a_row >= MAX_SKIPPED:
            raise FloatingPointError(
                f"gradients were not finite in the last {in_a_row} steps, to iteration "
                f"{self.iter}, though the losses were: nothing is learnt any more. Usual reasons: "
                "a learning rate that is too high, or weights close to overflow"
            )
        if self.grad_scaler is not None:
            return {}
        if new:
            logger.warning(
                "%d steps were left out: their gradients were not finite, though the losses were "
                "(%d so far)",
                new,
                skipped,
            )
        return {"skipped_steps": skipped} if skipped else {}

    def _log_overflows(self, storage: EventStorage) -> None:
        if self.grad_scaler is None:
            return
        scale, self.amp_overflows = self.grad_scaler.get_scale(), int(self._overflows)
        storage.put_scalars(smoothing_hint=False, amp_scale=scale, amp_overflows=self.amp_overflows)

    def _report(self, broken: StepLosses, rank: int) -> None:
        """End the training, on all ranks, in the words of the rank where it happened."""
        where = ""
        if self.report_dir is not None and rank == comm.get_rank():
            try:
                path = save_report(
                    broken,
                    self.report_dir,
                    model=self.model,
                    data_loader=self.data_loader,
                    seed=self.seed,
                )
                where = f"; reported in {path}"
            except Exception:  # the loss matters more
                logger.exception("The step could not be reported.")
        where = comm.all_gather(where)[rank]  # no rank ends before the file is written
        raise FloatingPointError(
            f"loss is not finite in iteration {broken.iteration}: {broken.losses}, images "
            f"{', '.join(broken.files) or 'unknown'}{where}"
        )

    def state_dict(self) -> dict[str, Any]:
        state = {**super().state_dict(), "optimizer": self.optimizer.state_dict()}
        state["seed"] = self.seed
        state["batch_size"] = self.batch_size
        state["skipped_steps"] = self.skipped_steps
        state["losses"] = self._recent_losses()
        state["unread"] = [
            (iteration, files, {k: float(x) for k, x in losses.items()})
            for iteration, files, losses in self._unread  # none but in an interrupted training
        ]
        if self.grad_scaler is not None:
            state["grad_scaler"] = self.grad_scaler.state_dict()
            state["amp_overflows"] = self.amp_overflows
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        load_optimizer(self.optimizer, state_dict["optimizer"])
        before = state_dict.get("batch_size", self.batch_size)
        if before != self.batch_size:
            logger.warning(
                "The batch was %d and is %d from here on: the %d steps that are done saw other "
                "images, and count as steps all the same",
                before,
                self.batch_size,
                self.iter + 1,
            )
        self.skipped_steps = state_dict.get("skipped_steps", 0)
        if self._guard is not None:
            self._guard.skipped = self.skipped_steps
        self._resumed_losses = state_dict.get("losses", {})
        self._unread = [
            (iteration, list(files), {k: torch.tensor(x) for k, x in losses.items()})
            for iteration, files, losses in state_dict.get("unread", [])
        ]
        if self.grad_scaler is not None and "grad_scaler" in state_dict:
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])
            self._overflows = self.amp_overflows = state_dict.get("amp_overflows", 0)

    def _recent_losses(self) -> dict[str, list[tuple[int, float]]]:
        """(iteration, value) of the present losses: the log shows them smoothed over some steps."""
        return {
            name: [(int(it), float(x)) for x, it in self.storage.history(name).values()[-WINDOW:]]
            for name in present_losses(self.storage)
        }

    def _restore_losses(self) -> None:
        for name, values in self._resumed_losses.items():
            for iteration, value in values:
                self.storage.iter = iteration
                self.storage.put_scalar(name, value)
        self.storage.iter = self.start_iter
