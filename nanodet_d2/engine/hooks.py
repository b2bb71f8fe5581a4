"""Training hooks that detectron2 lacks."""

from __future__ import annotations

import gc
import json
import logging
from pathlib import Path

from detectron2.engine import HookBase, hooks
from detectron2.utils import comm
from fvcore.common.checkpoint import Checkpointer
from omegaconf import DictConfig

from nanodet_d2.checkpoint import FINAL, replace_file
from nanodet_d2.data.workers import usable_cores
from nanodet_d2.modeling import NanoDetPlus

from .building import distribute
from .ending import EarlyStop
from .report import draw_curves
from .resume import LOG_FILE
from .writers import loader_share

logger = logging.getLogger(__name__)


class BestCheckpointer(hooks.BestCheckpointer):
    """detectron2's, which here remembers the best metric across a resume, in ``model_best.json``.

    The last checkpoint of a training is written before its last evaluation, so the metric cannot
    be in it.
    """

    def before_train(self) -> None:
        if self.trainer.start_iter > 0 and self._file.is_file():
            best = json.loads(self._file.read_text())
            self.best_metric, self.best_iter = best["value"], best["iteration"]

    def _best_checking(self) -> None:
        super()._best_checking()
        if self.best_metric is not None:
            best = {
                "metric": self._val_metric,
                "value": self.best_metric,
                "iteration": self.best_iter,
            }
            replace_file(self._file, json.dumps(best))

    @property
    def _file(self) -> Path:
        return Path(self._checkpointer.save_dir) / f"{self._file_prefix}.json"


class PeriodicCheckpointer(hooks.PeriodicCheckpointer):
    """detectron2's, which here writes the last step to one file only, ``model_final``.

    A training that is killed between two of them would have no step left to write the second.
    A resumed one counts the files that are there among those it keeps.
    """

    def before_train(self) -> None:
        self.max_iter = None  # the trainer's may change, and its last step is seen to below
        if self.trainer.start_iter > 0:
            self.recent_checkpoints = [str(x) for x in self.checkpointer.numbered_files()]
        final = Path(self.checkpointer.save_dir) / f"{FINAL}.pth"
        if self.trainer.start_iter >= self.trainer.max_iter and not final.is_file():
            self.trainer.iter = self.trainer.max_iter - 1  # the step that it is of
            self.after_step()
            self.trainer.iter = self.trainer.max_iter

    def after_step(self) -> None:
        if self.trainer.iter == self.trainer.max_iter - 1:
            self.save(FINAL, iteration=self.trainer.iter)
        else:
            super().after_step()


class CurveDrawer(HookBase):
    """Draw ``curves.png`` from detectron2's log of metrics after evaluations and at the end.

    Args:
        output_dir: of the log and the picture.
        period: steps from one evaluation to the next; 0 for only the end.
    """

    def __init__(self, output_dir: str, period: int):
        self.folder = Path(output_dir)
        self.period = period

    def after_step(self) -> None:
        if self.period and (self.trainer.iter + 1) % self.period == 0:
            self._draw()

    def after_train(self) -> None:
        self._draw()

    def _draw(self) -> None:
        metrics = self.folder / LOG_FILE
        if metrics.is_file() and metrics.stat().st_size:
            draw_curves(metrics, self.folder / "curves.png")


class AuxiliaryBranchLeaves(HookBase):
    """Wrap the model anew when its auxiliary branch leaves the step.

    Else torch's distributed wrapper would go on sending the branch's gradients, as zeros.

    Args:
        cfg: of the training.
        model: without a wrapper.
    """

    def __init__(self, cfg: DictConfig, model: NanoDetPlus):
        self.cfg = cfg
        self.model = model
        self._done = model.last_auxiliary_step is None or comm.get_world_size() == 1

    def before_step(self) -> None:
        if self._done or self.trainer.iter <= self.model.last_auxiliary_step:
            return
        self._done = True
        for parameter in self.model.auxiliary_parameters():
            parameter.requires_grad_(False)
        self.trainer.model = None
        gc.collect()  # a wrapper works until nothing refers to it
        self.trainer.model = distribute(self.cfg, self.model)


class LoaderHint(HookBase):
    """Say once when the steps wait for the data loader, for how large a share, and what helps.

    Args:
        period: steps over which the share is taken.
        share: above which to speak.
    """

    def __init__(self, period: int, share: float = 0.3):
        self.period = period
        self.share = share
        self._said = False

    def after_step(self) -> None:
        if self._said or (self.trainer.iter + 1) % self.period:
            return
        share = loader_share(self.trainer.storage, self.period)
        if share is not None and share > self.share:
            self._said = True
            workers = getattr(self.trainer.data_loader, "num_workers", 0)
            advice = loader_advice(workers, max(usable_cores() // comm.get_local_size(), 1))
            logger.warning(
                "The data loader takes %.0f %% of a step: the device waits for it. %s",
                100 * share,
                advice,
            )


def loader_advice(workers: int, cores: int) -> str:
    """What makes a loader faster that has so many workers, on a rank's share of the cores."""
    if workers < cores:
        return f"Raise dataloader.train.num_workers (now {workers}; cores per process: {cores})."
    return (
        f"Its {workers} workers have {cores} cores, so that more of them do not help. What does: "
        "dataloader.train.cache (decoded images are kept), dataloader.train.mapper.reduced_jpeg="
        "true or smaller files for large images, a smaller data.input_size, more cores."
    )


class EarlyStopping(HookBase):
    """End the training when the best metric lies some evaluations back. Needed on every rank.

    Args:
        period: steps from one evaluation to the next.
        patience: evaluations without a better one after which to stop.
        best: knows the best metric, on the main process; place it before this hook.
        checkpointer: saves the last step as ``model_final``.

    Raises:
        ValueError: for a patience below 1, or without periodic evaluations.
    """

    def __init__(
        self,
        period: int,
        patience: int,
        *,
        best: BestCheckpointer | None,
        checkpointer: Checkpointer,
    ):
        if patience < 1 or period < 1:
            raise ValueError(
                f"train.early_stop_patience {patience} with train.eval_period {period}; "
                "allowed: 1 or more for both"
            )
        self.period = period
        self.patience = patience
        self.best = best
        self.checkpointer = checkpointer

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done % self.period or done >= self.trainer.max_iter:
            return
        waited = 0
        if self.best is not None and self.best.best_iter is not None:
            waited = (self.trainer.iter - self.best.best_iter) // self.period
        if comm.all_gather(waited)[0] < self.patience:
            return
        if self.best is not None:
            logger.warning(
                "Stopped after %d of %d steps: no better metric than %.5g in %d evaluations.",
                done,
                self.trainer.max_iter,
                self.best.best_metric,
                waited,
            )
            self.checkpointer.save(FINAL, iteration=self.trainer.iter)
        raise EarlyStop
