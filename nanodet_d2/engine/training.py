"""Training and evaluation of a lazy config, on detectron2's trainers."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.engine import HookBase, hooks
from detectron2.utils import comm
from detectron2.utils.events import EventWriter
from omegaconf import DictConfig, OmegaConf
from torch import nn

from nanodet_d2.checkpoint import LoadReport, SafeCheckpointer, load_weights, set_aside_training
from nanodet_d2.data.splits import known_names
from nanodet_d2.data.validation import warn_of_shared_images
from nanodet_d2.layers import norms_are_folded
from nanodet_d2.modeling import NanoDetPlus

from .budget import Paced, TimeBudget
from .building import build_model, build_optimizer_of, describe, distribute, uses_gpu
from .ema import EMAHook, ModelEMA, StartOfEMA
from .ending import EarlyStop, InterruptCheckpointer, LastGood
from .evaluation import RAW_PREFIX, Evaluation
from .hooks import (
    AuxiliaryBranchLeaves,
    BestCheckpointer,
    CurveDrawer,
    EarlyStopping,
    LoaderHint,
    PeriodicCheckpointer,
)
from .length import counts_iterations, settle_length, steps_per_epoch
from .mistakes import RisingLoss
from .outcome import log_outcome
from .resume import ResumePoint, find_resume_point, resolve_seed
from .solver import fit_periods
from .start import StartHook, fit_to_classes
from .sync_norm import synchronise_norms
from .trainer import Trainer
from .validation_loss import ValidationLoss, build_validation_batches
from .writers import build_writers

logger = logging.getLogger(__name__)

BEST_METRIC = "bbox/AP"


def evaluate_checkpoint(cfg: DictConfig) -> dict[str, Any]:
    """Evaluate ``train.init_checkpoint``, which has to fit the config's model as a whole.

    Raises:
        ValueError: without a checkpoint, or with one that does not fit.
    """
    if not cfg.train.init_checkpoint:
        raise ValueError("evaluation needs train.init_checkpoint=<path or URL of the weights>")
    model = build_model(cfg, checkpoint_follows=True)
    load_weights(model, cfg.train.init_checkpoint, require_all=True)
    return Evaluation(cfg)(distribute(cfg, model))


def train(cfg: DictConfig, *, resume: bool = False) -> dict[str, Any]:
    """Train a config's model; the last evaluation's metrics are returned.

    Args:
        cfg: with ``model``, ``dataloader``, ``optimizer``, ``lr_multiplier`` and ``train``.
        resume: go on from the last checkpoint in ``train.output_dir`` if there is one, as if the
            training had not been interrupted; else start from ``train.init_checkpoint``.

    Raises:
        FloatingPointError: for a loss that is not finite.
        ValueError: for settings that do not go together; on a resume for checkpoints that are all
            damaged, or an output folder that hosts do not share; for too many broken images; for
            images of the evaluation that cannot be used, before the first step.
        RuntimeError: if a checkpoint cannot be written.
    """
    _check_numbers(cfg)
    by_time = not counts_iterations(cfg) and cfg.train.get("minutes") is not None
    budget = TimeBudget(60 * cfg.train.minutes) if by_time else None
    resumed = find_resume_point(cfg.train.output_dir) if resume else None
    if budget and resumed and resumed.budget:
        budget.load_state_dict(resumed.budget)
    resolve_seed(cfg, resumed)
    if cfg.train.deterministic:
        _be_deterministic()
    model = build_model(cfg, checkpoint_follows=resumed is not None)
    other_classes = resumed.other_classes if resumed else False
    if resumed is None:
        other_classes = not _start_anew(cfg, model, set_aside=not resume).same_classes
    fit_to_classes(cfg, other_classes=other_classes)
    if cfg.train.sync_norm:
        model = synchronise_norms(model, torchs_own=uses_gpu(cfg))
    optimizer = build_optimizer_of(cfg, model)
    loader = instantiate(cfg.dataloader.train)
    evaluate = Evaluation(cfg)
    if comm.is_main_process():
        warn_of_shared_images(loader, evaluate.loader)

    if cfg.train.compile.enabled:
        model.compile(**cfg.train.compile.settings)
    first = resumed.steps if resumed else 0
    amp = _mixed_precision(cfg)
    settle_length(cfg, budget, model, loader, evaluate, start_iter=first, amp=amp)
    fit_periods(cfg)
    trainer = _build_trainer(cfg, distribute(cfg, model), loader, optimizer)
    ema = ModelEMA(model, **cfg.train.ema.settings) if cfg.train.ema.enabled else None
    checkpointables: dict[str, Any] = {"trainer": trainer}
    if ema:
        checkpointables["ema"] = ema
        if ema.start_share:
            checkpointables["ema_start"] = StartOfEMA(ema)
    checkpointer = SafeCheckpointer(
        model, cfg.train.output_dir, card=describe(cfg, model), **checkpointables
    )

    results: dict[str, Any] = {}

    def test() -> dict[str, Any]:
        results.update(evaluate(model, ema, raw_too=cfg.train.evaluate_raw))
        return results

    trainer.register_hooks(
        [
            StartHook(other_classes=other_classes),
            *_build_hooks(cfg, trainer, checkpointer, ema, test, budget),
        ]
    )
    start_iter = _go_on(cfg, ema, checkpointer, resumed) if resumed else 0
    if start_iter >= cfg.train.max_iter:
        logger.warning("No step left to do: %d of %d are done", start_iter, cfg.train.max_iter)
    with contextlib.suppress(EarlyStop):
        trainer.train(start_iter, cfg.train.max_iter)
    if budget:
        budget.log_end(trainer.iter)
    if comm.is_main_process():
        log_outcome(cfg.train.output_dir, results)
    return results


def _check_numbers(cfg: DictConfig) -> None:
    for key in ("max_iter", "log_period", "checkpointer.period"):
        value = OmegaConf.select(cfg.train, key)
        if value < 1:
            raise ValueError(f"train.{key} {value}; allowed: 1 or more")


def _be_deterministic() -> None:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True)


def _build_trainer(
    cfg: DictConfig, model: nn.Module, loader: Any, optimizer: torch.optim.Optimizer
) -> Trainer:
    return Trainer(
        model,
        loader,
        optimizer,
        log_period=cfg.train.log_period,
        save_period=cfg.train.checkpointer.period,
        amp=_mixed_precision(cfg),
        report_dir=cfg.train.output_dir,
        seed=cfg.train.seed,
        batch_size=cfg.dataloader.train.total_batch_size,
    )


def _mixed_precision(cfg: DictConfig) -> torch.dtype | None:
    if not cfg.train.amp.enabled:
        return None
    types = {"float16": torch.float16, "bfloat16": torch.bfloat16}
    name = cfg.train.amp.dtype
    if name not in types:
        raise ValueError(f"train.amp.dtype {name!r}; allowed: {', '.join(types)}")
    if name == "float16" and not uses_gpu(cfg):
        raise ValueError(
            f"train.amp.enabled needs a CUDA device, found train.device={cfg.train.device}; "
            "elsewhere allowed: train.amp.dtype=bfloat16"
        )
    return types[name]


def _build_hooks(
    cfg: DictConfig,
    trainer: Trainer,
    checkpointer: SafeCheckpointer,
    ema: ModelEMA | None,
    test: Any,
    budget: TimeBudget | None,
) -> list[HookBase | None]:
    """The order matters: the clock first, then the average, so that all others see it up to date.

    Checkpoints come after whatever else belongs to their step, because a resumed training does
    not do that again.
    """
    main = comm.is_main_process()
    period = cfg.train.eval_period
    writers: list[EventWriter] = []
    if main:
        steps = steps_per_epoch(trainer.data_loader, trainer.batch_size)
        writers = build_writers(cfg.train.output_dir, trainer, steps_per_epoch=steps, budget=budget)
    best = _best_checkpointers(cfg, checkpointer) if main else []
    validation = early_stop = None
    if cfg.train.validation_loss:
        batches = build_validation_batches(cfg)
        validation = ValidationLoss(period, checkpointer.model, batches)
    # In a training by time there may be no evaluation before the end.
    if cfg.train.early_stop_patience is not None and (period or budget is None):
        patience = cfg.train.early_stop_patience
        early_stop = EarlyStopping(
            period, patience, best=best[0] if best else None, checkpointer=checkpointer
        )
    last_good = LastGood(checkpointer)
    warmup = OmegaConf.select(cfg, "lr_multiplier.warmup_iters", default=0)
    schedule = instantiate(cfg.lr_multiplier)
    if budget:
        schedule = Paced(schedule, budget, cfg.train.max_iter)
    return [
        budget,
        hooks.IterationTimer(),
        AuxiliaryBranchLeaves(cfg, checkpointer.model),
        EMAHook(ema) if ema else None,
        hooks.LRScheduler(scheduler=schedule),
        last_good,
        InterruptCheckpointer(checkpointer, last_good),
        validation,
        hooks.EvalHook(period, test),
        *best,
        LoaderHint(cfg.train.log_period) if main else None,
        RisingLoss(cfg.train.log_period, warmup) if main else None,
        hooks.PeriodicWriter(writers, period=cfg.train.log_period) if main else None,
        CurveDrawer(cfg.train.output_dir, period) if main else None,
        early_stop,
        PeriodicCheckpointer(checkpointer, **cfg.train.checkpointer) if main else None,
    ]


def _best_checkpointers(cfg: DictConfig, checkpointer: SafeCheckpointer) -> list[BestCheckpointer]:
    period, folder = cfg.train.eval_period, checkpointer.save_dir
    # A resume goes on from the latest checkpoint, not from the best: these are not tagged.
    silent = functools.partial(
        SafeCheckpointer, checkpointer.model, folder, tag=False, card=checkpointer.card
    )
    whole = silent(**checkpointer.checkpointables)
    best = [BestCheckpointer(period, whole, BEST_METRIC)]
    if cfg.train.ema.enabled and cfg.train.evaluate_raw:
        # Without the averaged weights, which would be loaded in place of the raw ones.
        best.append(
            BestCheckpointer(
                period, silent(), RAW_PREFIX + BEST_METRIC, file_prefix="model_best_raw"
            )
        )
    return best


def _start_anew(cfg: DictConfig, model: NanoDetPlus, *, set_aside: bool) -> LoadReport:
    """Load what a new training starts from, and make room for it in the output folder."""
    report = LoadReport()
    if cfg.train.init_checkpoint:
        names = known_names(cfg.get("data"), model.head.num_classes)
        report = load_weights(model, cfg.train.init_checkpoint, class_names=names)
        logger.info("A new training starts from the weights of %s", cfg.train.init_checkpoint)
        _freeze_folded_norms(model)
    else:
        logger.info("No train.init_checkpoint: training starts from random weights.")
    comm.synchronize()  # the weights may lie in that folder
    if set_aside and comm.is_main_process():
        aside = set_aside_training(cfg.train.output_dir)
        if aside:
            logger.warning(
                "%s held an earlier training, which is now in %s. To go on with one: --resume",
                cfg.train.output_dir,
                aside,
            )
    comm.synchronize()
    return report


def _freeze_folded_norms(model: NanoDetPlus) -> None:
    """Released weights lose their skill within some steps if folded norms take statistics."""
    if not model.freeze_norm and norms_are_folded(model):
        model.freeze_norm = True
        model.train(model.training)
        logger.warning(
            "The weights' batch norms are folded into their convolutions, as in the weights that "
            "the reference released: norms are frozen, as with model.freeze_norm=true"
        )


def _go_on(
    cfg: DictConfig, ema: ModelEMA | None, checkpointer: SafeCheckpointer, resumed: ResumePoint
) -> int:
    """Load a checkpoint of the training and return the first iteration that is left."""
    if ema and ema.start_share and resumed.has_ema and not resumed.has_start:
        raise ValueError(
            f"train.ema.settings.start_share={ema.start_share:g}, but {resumed.checkpoint} is of a "
            "training without it, whose start is not known any more. Resume with "
            "train.ema.settings.start_share=0, or begin a new training from that file "
            "(train.init_checkpoint)"
        )
    checkpointer.load(resumed.checkpoint)
    _freeze_folded_norms(checkpointer.model)
    logger.info("Resumed after %d steps from %s", resumed.steps, resumed.checkpoint)
    if ema and not resumed.has_ema:
        ema.reset()
        logger.warning("%s has no averaged weights: they start here.", resumed.checkpoint)
    if cfg.train.init_checkpoint:
        logger.info("train.init_checkpoint was where the training began; it is not read again.")
    return resumed.steps
