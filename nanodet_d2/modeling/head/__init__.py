"""Heads: raw predictions, assignment and losses."""

from .assigner import Assigner, Assignment, DynamicSoftLabelAssigner, GroundTruth
from .atss import ATSSAssigner
from .detections import select_detections, unwarp
from .nanodet_plus_head import NanoDetHead, NanoDetPlusHead
from .raw import Predictions
from .simple_conv_head import GFLHead, SimpleConvHead

__all__ = [
    "ATSSAssigner",
    "Assigner",
    "Assignment",
    "DynamicSoftLabelAssigner",
    "GFLHead",
    "GroundTruth",
    "NanoDetHead",
    "NanoDetPlusHead",
    "Predictions",
    "SimpleConvHead",
    "select_detections",
    "unwarp",
]
