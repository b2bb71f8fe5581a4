"""Training hooks that detectron2 lacks."""

from __future__ import annotations

import logging
from typing import Any

from detectron2.engine import HookBase, hooks
from detectron2.utils import comm
from fvcore.common.checkpoint import Checkpointer

logger = logging.getLogger(__name__)


class BestCheckpointer(hooks.BestCheckpointer):
    """detectron2's, which here remembers the best metric across a resume."""

    def state_dict(self) -> dict[str, Any]:
        return {"best_metric": self.best_metric, "best_iter": self.best_iter}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best_metric, self.best_iter = state["best_metric"], state["best_iter"]


class InterruptCheckpointer(HookBase):
    """Save what was trained when the training ends early, by an error or by Ctrl-C."""

    def __init__(self, checkpointer: Checkpointer):
        self.checkpointer = checkpointer

    def after_train(self) -> None:
        trainer = self.trainer
        if trainer.iter >= trainer.max_iter or trainer.iter <= trainer.start_iter:
            return  # finished, or nothing was done
        # The step in progress counts for nothing: a checkpoint names the last finished one.
        trainer.iter -= 1
        if comm.is_main_process():
            name = f"model_{trainer.iter:07d}"
            try:
                self.checkpointer.save(name, iteration=trainer.iter)
            except Exception:  # the error that ended the training matters more
                logger.exception("Could not save the interrupted training.")
            else:
                logger.warning("Training ended early; saved %s.pth, go on with --resume.", name)
