"""One run of a config, as the command line asks for it: training or evaluation."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from typing import Any

from detectron2.engine import default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from nanodet_d2 import zoo
from nanodet_d2.config import refuse_unknown_train_keys
from nanodet_d2.data.describe import describe_data, settle_division
from nanodet_d2.resolve import resolve

from .batch_size import choose_batch_size
from .building import build_model
from .length import counts_iterations, prefer_given_length
from .nonfinite import replay
from .solver import fit_periods, scale_to_batch_size
from .training import evaluate_checkpoint, train

logger = logging.getLogger(__name__)


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Train or evaluate, in each process of it; the metrics are returned.

    Args:
        args: of detectron2's ``default_argument_parser``: ``config_file``, ``opts``, ``eval_only``
            and ``resume`` are used. In place of a config a checkpoint does that knows its own.
    """
    source = resolve(args.config_file, args.opts)
    cfg = source.cfg
    args = argparse.Namespace(**{**vars(args), "config_file": source.config_file or ""})
    refuse_unknown_train_keys(cfg)
    if cfg.train.init_checkpoint in zoo.names():
        cfg.train.init_checkpoint = zoo.weights(cfg.train.init_checkpoint)
    setup_logger(cfg.train.output_dir, distributed_rank=comm.get_rank(), name="nanodet_d2")
    if not args.eval_only:
        prefer_given_length(cfg, args.opts)
        settle_division(cfg, resume=args.resume)
        known_length = counts_iterations(cfg)
        if known_length:
            fit_periods(cfg)
        choose_batch_size(cfg)
        scale_to_batch_size(cfg, known_length=known_length)
    default_setup(cfg, args)
    if args.eval_only:
        return evaluate_checkpoint(cfg)
    if cfg.get("data") is not None:  # a config may have loaders of its own
        logger.info("%s", describe_data(cfg.data))
    return train(cfg, resume=args.resume)


def replay_report(config_file: str, overrides: Sequence[str], report: str) -> dict[str, float]:
    """The losses of a step whose loss was not finite, made again from its report."""
    cfg = resolve(config_file, overrides).cfg
    model = build_model(cfg, checkpoint_follows=True).train()
    return {name: float(loss) for name, loss in replay(model, report).items()}
