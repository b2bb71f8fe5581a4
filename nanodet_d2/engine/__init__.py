"""What detectron2's engine lacks: resumes to the bit, averaged weights, torchrun, reports."""

from .batch_size import choose_batch_size
from .ema import EMAHook, ModelEMA
from .evaluation import Evaluation
from .evaluator import DetectionEvaluator
from .launch import launch
from .main import main, replay_report
from .solver import (
    build_optimizer,
    fit_periods,
    parameter_groups,
    scale_to_batch_size,
    warmup_cosine,
    warmup_multistep,
)
from .training import evaluate_checkpoint, train

__all__ = [
    "DetectionEvaluator",
    "EMAHook",
    "Evaluation",
    "ModelEMA",
    "build_optimizer",
    "choose_batch_size",
    "evaluate_checkpoint",
    "fit_periods",
    "launch",
    "main",
    "parameter_groups",
    "replay_report",
    "scale_to_batch_size",
    "train",
    "warmup_cosine",
    "warmup_multistep",
]
