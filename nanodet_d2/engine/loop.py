"""detectron2's training loop, whose end may move while it runs."""

from __future__ import annotations

import logging

from detectron2.engine import TrainerBase
from detectron2.utils.events import EventStorage

logger = logging.getLogger(__name__)


class Loop(TrainerBase):
    """As detectron2's, but ``max_iter`` counts as it is after each step, not as it was before all.

    A training by time learns on the way how many steps fit in.
    """

    def train(self, start_iter: int, max_iter: int) -> None:
        logger.info("Starting training from iteration %d", start_iter)
        self.iter = self.start_iter = start_iter
        self.max_iter = max_iter
        with EventStorage(start_iter) as self.storage:
            try:
                self.before_train()
                while self.iter < self.max_iter:
                    self.before_step()
                    self.run_step()
                    self.after_step()
                    self.iter += 1
            except Exception:
                logger.exception("Exception during training:")
                raise
            finally:
                self.after_train()
