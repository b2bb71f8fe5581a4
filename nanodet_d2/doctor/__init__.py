"""Checks of a data set before a training: ``python -m nanodet_d2.doctor DATASET``."""

from .annotations import Split, examine_annotations
from .images import examine_images, examine_pair

__all__ = ["Split", "examine_annotations", "examine_images", "examine_pair"]
