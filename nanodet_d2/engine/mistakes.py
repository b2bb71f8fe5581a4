"""Mistakes of a training that its figures give away: a line each, with what to do."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np
from detectron2.engine import HookBase

logger = logging.getLogger(__name__)

RISE = 1.5  # times the lowest loss so far, from which on a loss has risen
SWAPPED_SHARE = 0.6  # of a class's objects that are taken for the other one
_FEW = 5  # objects of a class say nothing


class RisingLoss(HookBase):
    """Say once that the loss rises: the learning rate is too high.

    Needed on the main process only.

    Args:
        period: steps from one look to the next.
        warmup: steps in which the rate has not come to its height.
    """

    def __init__(self, period: int, warmup: int = 0):
        self.period = period
        self.warmup = warmup
        self._lowest = math.inf
        self._said = False

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if self._said or done % self.period or "total_loss" not in self.trainer.storage.histories():
            return
        loss = self.trainer.storage.history("total_loss").latest()  # the period's mean
        if loss > RISE * self._lowest and done > self.warmup:
            self._said = True
            rate = self.trainer.storage.history("lr").latest()
            logger.warning(
                "The loss rose from %.3g to %.3g: the learning rate, now %.3g, is too high. Begin "
                "anew with a third of it: optimizer.lr=…",
                self._lowest,
                loss,
                rate,
            )
        self._lowest = min(self._lowest, loss)


def swapped_classes(counts: np.ndarray, num_classes: int) -> list[tuple[int, int]]:
    """Pairs of classes of which most objects of each are taken for the other.

    Args:
        counts: (K, 3) rows of object class, detection class and count, of ``confusion_of``; the
            class ``num_classes`` is the background.
    """
    table = {(a, b): n for a, b, n in counts.tolist()}
    totals = np.bincount(counts[:, 0], counts[:, 2], minlength=num_classes + 1)
    return [
        (a, b)
        for (a, b), n in table.items()
        if a < b < num_classes
        and min(totals[a], totals[b]) >= _FEW
        and n > SWAPPED_SHARE * totals[a]
        and table.get((b, a), 0) > SWAPPED_SHARE * totals[b]
    ]


def warn_of_swapped_classes(counts: np.ndarray, names: Sequence[str]) -> None:
    """Say which classes train and val seem to have the wrong way round."""
    for a, b in swapped_classes(counts, len(names)):
        logger.warning(
            "Most objects of %r are taken for %r, and the other way round: are the two swapped "
            "between train and val? Compare names and ids of both",
            names[a],
            names[b],
        )
