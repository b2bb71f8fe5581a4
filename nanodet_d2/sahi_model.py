"""A detector for ``sahi`` (MIT), which cuts pictures itself: its own detectron2 model reads yacs
configs only.

``sahi`` is imported with this module, and nothing else imports it::

    from sahi.predict import get_sliced_prediction
    from nanodet_d2.sahi_model import NanoDetModel

    model = NanoDetModel(model_path="model.onnx", confidence_threshold=0.35)
    result = get_sliced_prediction("large.jpg", model, slice_height=640, slice_width=640)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sahi.models.base import DetectionModel
from sahi.prediction import ObjectPrediction
from sahi.utils.compatibility import fix_full_shape_list, fix_shift_amount_list

from nanodet_d2.runtime import Detections, Detector


class NanoDetModel(DetectionModel):
    """``sahi``'s model on a ``Detector``.

    Arguments are those of ``sahi``'s ``DetectionModel``: ``model_path`` is an exported file, whose
    engine computes where it does by default; or ``model`` is a ``nanodet_d2.Detector`` of anything,
    on any device. Scores below ``confidence_threshold`` are left out, after those that the detector
    leaves out itself.
    """

    def load_model(self) -> None:
        """Open the exported file ``model_path``.

        Raises:
            ValueError: without one, or as ``Detector``.
        """
        if self.model_path is None:
            raise ValueError(
                "NanoDetModel needs model_path, an exported file, or model, a Detector"
            )
        self.set_model(Detector(self.model_path, score_thresh=self.confidence_threshold))

    def set_model(self, model: Detector) -> None:
        """Use a detector.

        Raises:
            ValueError: for one that cuts pictures itself.
        """
        if model.tiles is not None:
            raise ValueError("sahi cuts the pictures: the Detector has to be without tiles")
        self.model = model
        self.category_mapping = {str(i): name for i, name in enumerate(model.class_names)}

    @property
    def num_categories(self) -> int:
        """Number of classes."""
        return len(self.model.class_names)

    def perform_inference(self, image: np.ndarray) -> None:
        """Detect in an image (H, W, 3) uint8, RGB as ``sahi`` has it."""
        self._original_predictions = [self.model(_as_bgr(image))]

    def perform_batch_inference(self, images: Sequence[np.ndarray]) -> None:
        """Detect in several, in one batch where the file is dynamic."""
        self._original_predictions = self.model([_as_bgr(image) for image in images])

    def _create_object_prediction_list_from_original_predictions(
        self,
        shift_amount_list: Any = None,
        full_shape_list: Any = None,
    ) -> None:
        found: list[Detections] = self._original_predictions
        shifts = fix_shift_amount_list(shift_amount_list)
        shapes = fix_full_shape_list(full_shape_list) or [None] * len(found)
        self._object_prediction_list_per_image = [
            self._as_predictions(single, shift, shape)
            for single, shift, shape in zip(found, shifts, shapes)
        ]

    def _as_predictions(
        self, found: Detections, shift: list[int | float], shape: list[int | float] | None
    ) -> list[ObjectPrediction]:
        found = found[found.confidence >= self.confidence_threshold]
        return [
            ObjectPrediction(
                bbox=box,
                score=score,
                category_id=label,
                category_name=found.class_names[label],
                shift_amount=shift,
                full_shape=shape,
            )
            for box, score, label in zip(
                found.xyxy.tolist(), found.confidence.tolist(), found.class_id.tolist()
            )
        ]


def _as_bgr(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image[:, :, ::-1])
