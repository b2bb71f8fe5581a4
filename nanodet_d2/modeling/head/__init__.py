"""Heads: raw predictions, assignment and losses."""

from .assigner import Assignment, DynamicSoftLabelAssigner, GroundTruth
from .aux_head import SimpleConvHead
from .detections import select_detections
from .nanodet_plus_head import NanoDetPlusHead
from .raw import Predictions

__all__ = [
    "Assignment",
    "DynamicSoftLabelAssigner",
    "GroundTruth",
    "NanoDetPlusHead",
    "Predictions",
    "SimpleConvHead",
    "select_detections",
]
