"""Pictures of detections and of ground truth, by detectron2's visualizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import matplotlib
import numpy as np
from detectron2.data import Metadata
from detectron2.structures import Instances
from detectron2.utils.colormap import colormap
from detectron2.utils.visualizer import ColorMode, Visualizer

_GAP = 8  # pixels between the pictures of a sheet
_COLORS = colormap(rgb=False, maximum=255).astype(int).tolist()
_LUMA = (0.114, 0.587, 0.299)  # of blue, green, red: ITU-R BT.601
_SMALL = 480  # pixels; smaller images are enlarged, so that labels are readable
_PLAIN_TEXT = {"text.parse_math": False}  # a class may be called "$a_b$"


@matplotlib.rc_context(_PLAIN_TEXT)
def draw_detections(
    image: np.ndarray, instances: Instances, metadata: Metadata, *, score_thresh: float = 0.35
) -> np.ndarray:
    """Draw the detections above a score.

    Args:
        image: (H, W, 3) uint8 BGR.
        instances: with ``pred_boxes`` (XYXY, pixels of ``image``), ``scores``, ``pred_classes``.
        metadata: its ``thing_classes`` name the classes.
        score_thresh: lowest score to draw.

    Returns:
        (H', W', 3) uint8 BGR; small images come back enlarged.
    """
    shown = instances[instances.scores > score_thresh].to("cpu")
    return _bgr(_visualizer(image, metadata).draw_instance_predictions(shown))


def draw_boxes(image: np.ndarray, instances: Instances, names: Sequence[str]) -> np.ndarray:
    """Draw all detections by OpenCV alone: a hundred times as fast, and the size stays.

    Args:
        image: (H, W, 3) uint8 BGR; it is not changed.
        instances: as in :func:`draw_detections`, on the CPU.
        names: of the classes.

    Returns:
        (H, W, 3) uint8 BGR.
    """
    drawn = image.copy()
    unit = max(image.shape[:2]) / 640  # pictures are looked at in one size, whatever they have
    thickness, scale = max(1, round(2 * unit)), max(0.35, 0.5 * unit)
    boxes = instances.pred_boxes.tensor.round().int().tolist()
    rows = zip(boxes, instances.scores.tolist(), instances.pred_classes.tolist())
    for (x0, y0, x1, y1), score, label in reversed(list(rows)):  # the best on top
        color = _COLORS[label % len(_COLORS)]
        text = f"{names[label]} {score:.0%}"
        font = (cv2.FONT_HERSHEY_SIMPLEX, scale)
        (width, height), base = cv2.getTextSize(text, *font, max(1, thickness // 2))
        cv2.rectangle(drawn, (x0, y0), (x1, y1), color, thickness)
        top = y0 if y0 < height + base else y0 - height - base  # inside where no room is above
        cv2.rectangle(drawn, (x0, top), (x0 + width, top + height + base), color, cv2.FILLED)
        ink = (0, 0, 0) if np.dot(color, _LUMA) > 127 else (255, 255, 255)
        origin = (x0, top + height + base // 2)
        cv2.putText(drawn, text, origin, *font, ink, max(1, thickness // 2), cv2.LINE_AA)
    return drawn


@matplotlib.rc_context(_PLAIN_TEXT)
def draw_annotations(
    image: np.ndarray, dataset_dict: dict[str, Any], metadata: Metadata
) -> np.ndarray:
    """Draw the annotations of a detectron2 data set dict; shapes as in :func:`draw_detections`."""
    return _bgr(_visualizer(image, metadata).draw_dataset_dict(dataset_dict))


def contact_sheet(rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str]) -> np.ndarray:
    """Join pictures to a white sheet, a title over each column; pictures may differ in size."""
    height = max(x.shape[0] for row in rows for x in row)
    width = max(x.shape[1] for row in rows for x in row)
    header = np.full((40, width, 3), 255, np.uint8)

    def cell(picture: np.ndarray) -> np.ndarray:
        canvas = np.full((height + _GAP, width + _GAP, 3), 255, np.uint8)
        canvas[: picture.shape[0], : picture.shape[1]] = picture
        return canvas

    def title(text: str) -> np.ndarray:
        banner = header.copy()
        cv2.putText(banner, text, (8, 28), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (0, 0, 0), 2)
        return np.pad(banner, ((0, 0), (0, _GAP), (0, 0)), constant_values=255)

    lines = [np.hstack([title(text) for text in titles])]
    lines += [np.hstack([cell(picture) for picture in row]) for row in rows]
    return np.vstack(lines)


def _visualizer(image: np.ndarray, metadata: Metadata) -> Visualizer:
    scale = max(1.0, _SMALL / max(image.shape[:2]))
    by_class = ColorMode.SEGMENTATION  # one colour a class, so that pictures can be compared
    return Visualizer(image[:, :, ::-1], metadata, scale=scale, instance_mode=by_class)


def _bgr(drawn: Any) -> np.ndarray:
    return np.ascontiguousarray(drawn.get_image()[:, :, ::-1])
