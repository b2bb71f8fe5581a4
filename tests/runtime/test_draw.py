"""Pictures by detectron2's visualizer."""

from __future__ import annotations

import numpy as np
import torch
from detectron2.data import Metadata
from detectron2.structures import Boxes, BoxMode, Instances
from nanodet_d2.visualization import draw_annotations, draw_detections


def test_class_names_are_not_read_as_formulas():
    image = np.full((64, 64, 3), 128, np.uint8)
    metadata = Metadata(thing_classes=["a$_$b"], thing_colors=[(255, 0, 0)])
    found = Instances((64, 64), pred_boxes=Boxes(torch.tensor([[9.0, 9.0, 50.0, 50.0]])))
    found.scores, found.pred_classes = torch.ones(1), torch.zeros(1, dtype=torch.int64)
    truth = {"bbox": [9, 9, 50, 50], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
    for drawn in (
        draw_detections(image, found, metadata),
        draw_annotations(image, {"annotations": [truth]}, metadata),
    ):
        assert drawn.shape == (480, 480, 3) and drawn.std() > 10
