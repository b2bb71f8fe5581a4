"""What detectron2's engine lacks: averaged weights, safe checkpoints, metrics as json."""

from .ema import EMAHook, ModelEMA
from .evaluator import DetectionEvaluator
from .solver import build_optimizer, parameter_groups, scale_to_batch_size, warmup_cosine
from .training import Evaluation, evaluate_checkpoint, train

__all__ = [
    "DetectionEvaluator",
    "EMAHook",
    "Evaluation",
    "ModelEMA",
    "build_optimizer",
    "evaluate_checkpoint",
    "parameter_groups",
    "scale_to_batch_size",
    "train",
    "warmup_cosine",
]
