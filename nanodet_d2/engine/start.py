"""What a training starts from, and which settings follow from it."""

from __future__ import annotations

import logging

from detectron2.engine import HookBase
from omegaconf import DictConfig

logger = logging.getLogger(__name__)


class StartHook(HookBase):
    """Remembers across a resume whether a training started from weights for other classes."""

    def __init__(self, *, other_classes: bool):
        self.other_classes = other_classes

    def state_dict(self) -> dict[str, bool]:
        return {"other_classes": self.other_classes}

    def load_state_dict(self, state_dict: dict[str, bool]) -> None:
        self.other_classes = state_dict["other_classes"]


def fit_to_classes(cfg: DictConfig, *, other_classes: bool) -> None:
    """Settings that depend on whether a training goes on with the classes of its weights, in place.

    Weights for the same classes have something to forget: a lower rate, and averages that are mixed
    with the start, keep more of it. Classes that start from nothing would stay half way by either.
    """
    train = cfg.train
    if not train.init_checkpoint:
        return
    if other_classes:
        if train.ema.settings.get("start_share"):
            logger.info(
                "The classes are not those of the weights: train.ema.settings.start_share %g -> 0",
                train.ema.settings.start_share,
            )
            train.ema.settings.start_share = 0.0
    elif train.get("same_classes_lr_factor", 1.0) != 1.0:
        rate = cfg.optimizer.lr * train.same_classes_lr_factor
        logger.info(
            "The classes are those of the weights: optimizer.lr %g -> %g", cfg.optimizer.lr, rate
        )
        cfg.optimizer.lr, train.same_classes_lr_factor = rate, 1.0  # once; checkpoints tell both
