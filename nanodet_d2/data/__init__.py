"""Data sets, augmentation and the mapper between them and the model."""

from .color import RandomColor
from .mapper import DetectionMapper
from .splits import num_classes, split_name
from .warp import RandomWarp, WarpTransform

__all__ = [
    "DetectionMapper",
    "RandomColor",
    "RandomWarp",
    "WarpTransform",
    "num_classes",
    "split_name",
]
