"""Data sets, augmentation and the mapper between them and the model."""

from .augmentation import RandomColor, RandomWarp, WarpTransform
from .mapper import DetectionMapper
from .splits import num_classes, split_name

__all__ = [
    "DetectionMapper",
    "RandomColor",
    "RandomWarp",
    "WarpTransform",
    "num_classes",
    "split_name",
]
