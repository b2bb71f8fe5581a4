"""Data sets, augmentation and the mapper between them and the model."""

from nanodet_d2.runtime.images import ImageError

from .cache import ImageCache
from .color import RandomColor
from .loader import build_train_loader
from .mapper import DetectionMapper
from .mixing import CopyPaste, MixUp, Mosaic
from .splits import num_classes, split_name
from .validation import build_test_loader
from .warp import RandomWarp, WarpTransform

__all__ = [
    "CopyPaste",
    "DetectionMapper",
    "ImageCache",
    "ImageError",
    "MixUp",
    "Mosaic",
    "RandomColor",
    "RandomWarp",
    "WarpTransform",
    "build_test_loader",
    "build_train_loader",
    "num_classes",
    "split_name",
]
