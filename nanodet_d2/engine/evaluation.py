"""Evaluation of a config's model, and what is kept of it."""

from __future__ import annotations

import itertools
import json
import logging
import math
import os
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from detectron2.config import instantiate
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from omegaconf import DictConfig
from torch import nn

from .ema import ModelEMA

logger = logging.getLogger(__name__)

RESULTS_FILE = "evaluation.json"
ESTIMATED = 5  # batches
METRICS_SHARE, METRICS_S = 0.2, 1.0  # time for metrics and pictures, beside that of the batches
RAW_PREFIX = "raw_"  # of the tasks, where the raw weights are evaluated beside the averaged ones

Results = dict[str, dict[str, Any]]


class Evaluation:
    """A config's test set and evaluator, built once.

    Building reads the annotations and opens the images, so that what is wrong with them is found
    before a training and not after it.

    Args:
        cfg: with ``dataloader.test``, ``dataloader.evaluator`` and ``train.output_dir``.

    Raises:
        ValueError: for annotations that cannot be read, or images that cannot be used.
        FileNotFoundError: for images that are missing.
    """

    def __init__(self, cfg: DictConfig):
        self.loader = instantiate(cfg.dataloader.test)
        self.evaluator = instantiate(cfg.dataloader.evaluator)
        self.file = os.path.join(cfg.train.output_dir, RESULTS_FILE)

    def __call__(
        self, model: nn.Module, ema: ModelEMA | None = None, *, raw_too: bool = False
    ) -> Results:
        """Evaluate a model, print the metrics and write them as json.

        Args:
            model: perhaps in a distributed wrapper.
            ema: its averaged weights, which are then evaluated in place of its own.
            raw_too: evaluate its own weights as well, as tasks whose names begin with "raw_".

        Returns:
            ``{"bbox": {"AP": …}}`` on the main process, an empty dict on the others.
        """
        results: Results = {}
        if ema is None:
            results.update(self._measure(model))
        else:
            if raw_too:  # first: the pictures that stay are those of the averaged weights
                raw = self._measure(model)
                results.update({RAW_PREFIX + task: metrics for task, metrics in raw.items()})
            with ema.applied():
                results.update(self._measure(model))
        if comm.is_main_process():
            print_csv_format(results)
            PathManager.mkdirs(os.path.dirname(self.file))
            with PathManager.open(self.file, "w") as f:
                json.dump(_without_nan(results), f, indent=1, allow_nan=False)
            logger.info("Metrics written to %s", self.file)
        return results

    @torch.no_grad()
    def estimate(self, model: nn.Module) -> float:
        """About how many seconds an evaluation takes, from the first few batches of it.

        Args:
            model: in evaluation mode. The fewer objects it finds, the less this tells.
        """
        times = [time.perf_counter()]
        for batch in itertools.islice(self.loader, ESTIMATED):
            model(batch)
            times.append(time.perf_counter())
        seconds = np.diff(times)
        if len(seconds) < 2:
            return METRICS_S + float(seconds.sum())
        # The first starts the loader's workers.
        batches = seconds[0] + (len(self.loader) - 1) * np.median(seconds[1:])
        return METRICS_S + (1 + METRICS_SHARE) * float(batches)

    def _measure(self, model: nn.Module) -> Results:
        share_buffers(model)
        return inference_on_dataset(model, self.loader, self.evaluator) or {}


@torch.no_grad()
def share_buffers(model: nn.Module) -> None:
    """Give all ranks the main one's buffers, which are those that are saved.

    In training each rank's batch norms see its own images, so that the ranks would evaluate
    different models.
    """
    if comm.get_world_size() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def _without_nan(results: Mapping[str, Mapping[str, float]]) -> Results:
    """The metrics with None for those that the data cannot tell: NaN is not json."""
    return {
        task: {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        for task, metrics in results.items()
    }
