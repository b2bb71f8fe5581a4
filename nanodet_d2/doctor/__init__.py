"""Checks of a data set before a training: ``nanodet-d2 doctor``."""

from .annotations import Split, examine_annotations
from .images import examine_images, examine_pair

__all__ = ["Split", "examine_annotations", "examine_images", "examine_pair"]
