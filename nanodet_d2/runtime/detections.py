"""What was found in an image."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Union

import numpy as np

from .metadata import FIT, STRETCH
from .preprocess import fit_of

Index = Union[int, slice, Sequence[int], Sequence[bool], np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Detections:
    """K detections in one image, best first.

    The names are those of the ``supervision`` package, so that
    ``sv.Detections(xyxy=x.xyxy, confidence=x.confidence, class_id=x.class_id)`` works.

    Attributes:
        xyxy: (K, 4) float32, pixels of the image.
        confidence: (K,) float32, scores in [0, 1].
        class_id: (K,) int64, indices of ``class_names``.
        class_names: of all classes of the model.
        image_size: (height, width) of the image.

    Example:
        >>> from nanodet_d2.runtime import Detections, Detector
        >>> found: Detections = Detector("model.onnx")("street.jpg")
        >>> sure = found[found.confidence > 0.5]
        >>> len(sure), sure.names, sure.xyxy.shape
    """

    xyxy: np.ndarray
    confidence: np.ndarray
    class_id: np.ndarray
    class_names: tuple[str, ...]
    image_size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.xyxy)

    def __getitem__(self, index: Index) -> Detections:
        """Some of them: by a mask (K,), a slice, a list of indices, or one index."""
        rows = [index] if isinstance(index, (int, np.integer)) else index
        if isinstance(rows, (list, tuple)) and not len(rows):
            rows = slice(0, 0)
        rows = rows if isinstance(rows, slice) else np.asarray(rows)
        return dataclasses.replace(
            self,
            xyxy=self.xyxy[rows],
            confidence=self.confidence[rows],
            class_id=self.class_id[rows],
        )

    @property
    def names(self) -> list[str]:
        """The name of each detection's class."""
        return [self.class_names[i] for i in self.class_id]

    def to_instances(self) -> Any:
        """As detectron2's ``Instances``, with ``pred_boxes``, ``scores`` and ``pred_classes``.

        Raises:
            ImportError: where there is no detectron2.
        """
        import torch
        from detectron2.structures import Boxes, Instances

        return Instances(
            self.image_size,
            pred_boxes=Boxes(torch.from_numpy(self.xyxy.copy())),
            scores=torch.from_numpy(self.confidence.copy()),
            pred_classes=torch.from_numpy(self.class_id.copy()),
        )


def in_image(
    boxes: np.ndarray,
    scores: np.ndarray,
    classes: np.ndarray,
    *,
    class_names: tuple[str, ...],
    image_size: Sequence[int],
    input_size: tuple[int, int] | None = None,
    resize: str = STRETCH,
) -> Detections:
    """Detections of an image from boxes (K, 4) XYXY; those that are empty are left out.

    Args:
        input_size: (height, width) that the boxes are pixels of; the image's if None. Boxes go back
            from there to the image and are clipped to it.
        resize: what was done to the image, as in ``InputDescription``.
    """
    height, width = image_size
    boxes = boxes.reshape(-1, 4).astype(np.float32)  # a copy
    kept = _nonempty(boxes)
    if input_size is not None:
        if resize == FIT:
            fit = fit_of(height, width, input_size[0], input_size[1])
            boxes = (boxes - np.array(fit.shift * 2, np.float32)) / np.float32(fit.factor)
        else:
            boxes[:, 0::2] *= width / input_size[1]
            boxes[:, 1::2] *= height / input_size[0]
        np.clip(boxes, 0, np.array([width, height, width, height], np.float32), out=boxes)
        kept &= _nonempty(boxes)
    return Detections(
        xyxy=boxes[kept],
        confidence=scores[kept].astype(np.float32),
        class_id=classes[kept].astype(np.int64),
        class_names=class_names,
        image_size=(height, width),
    )


def _nonempty(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
