"""Detectors of other origin, in ONNX, to be measured beside ours by the same functions.

Letters: P priors, C classes, S strides, K detections.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from nanodet_d2.runtime import Detections, Detector
from nanodet_d2.runtime.backends import require_packages
from nanodet_d2.runtime.backends.onnx import OnnxRuntime
from nanodet_d2.runtime.decode import Found, find
from nanodet_d2.runtime.decode_numpy import decode_boxes, make_priors
from nanodet_d2.runtime.detections import in_image
from nanodet_d2.runtime.images import MAX_PIXELS
from nanodet_d2.runtime.metadata import ExportMetadata, InputDescription
from nanodet_d2.runtime.preprocess import normalize

from .decoding import Decoding

_INTERPOLATIONS = {"linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC}
_DETR = ("labels", "boxes", "scores")


class Peer(Detector):
    """An ONNX file of a fixed input, run by ONNX Runtime. As for ours, boxes are decoded of those
    priors alone that have a candidate, and NMS is the runtime's.

    Args:
        path: of the file.
        decoding: what it takes and gives.
        class_names: in the order of its scores.
        num_threads: of the engine, its own choice if None.

    Raises:
        FileNotFoundError: if there is no such file.
        ImportError: without ONNX Runtime.
        ValueError: for a file with another input or other outputs than the decoding is for.
    """

    def __init__(
        self,
        path: str | Path,
        decoding: Decoding,
        class_names: Sequence[str],
        *,
        num_threads: int | None = None,
    ):
        require_packages([OnnxRuntime.needs()], f"running {path}")
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path} not found")
        backend = OnnxRuntime(str(path), num_threads, "cpu")
        self._session = backend.session
        self.decoding = decoding
        height, width = self._find_inputs(str(path))
        self.output_names = [x.name for x in self._session.get_outputs()]
        self._check_outputs(str(path))
        x = decoding
        described = InputDescription(
            name=self.input_name,
            height=height,
            width=width,
            dynamic=False,
            channel_order=x.order,
            # (g * scale - mean) / std, in grey levels
            mean=tuple(value / x.scale for value in x.mean),
            std=tuple(value / x.scale for value in x.std),
        )
        metadata = ExportMetadata(
            name=Path(path).stem,
            kind="decoded",
            class_names=tuple(class_names),
            strides=x.strides,
            reg_max=x.bins - 1,
            input=described,
            outputs=("boxes", "scores"),
            score_threshold=x.score_threshold,
            nms_threshold=x.nms_threshold,
            max_detections=x.max_detections,
            versions={},
            checkpoint_sha256="",
        )
        self._use(backend, metadata, str(path), None, None, MAX_PIXELS, None)
        self._priors = make_priors(height, width, x.strides)
        if x.kind == "gfl":
            self._priors[:, :2] += x.offset * self._priors[:, 2:]

    def _find_inputs(self, path: str) -> tuple[int, int]:
        """Height and width of the picture's input; sets what goes into the others."""
        given = self._session.get_inputs()
        pictures = [x for x in given if len(x.shape) == 4]
        others = [x for x in given if len(x.shape) != 4]
        shape: list[Any] = pictures[0].shape if len(pictures) == 1 else [None] * 4
        batch, channels, height, width = shape  # a free number has a name
        fixed = isinstance(height, int) and isinstance(width, int)
        if batch is None or (isinstance(batch, int) and batch != 1) or channels != 3 or not fixed:
            words = ", ".join(f"{x.name} {x.shape}" for x in given)
            raise ValueError(f"{path} takes {words}; allowed: one picture (1, 3, height, width)")
        self.input_name = pictures[0].name
        self._constant = {x.name: np.array([[width, height]], np.int64) for x in others}
        return height, width

    def _check_outputs(self, path: str) -> None:
        names, kind = self.output_names, self.decoding.kind
        fits = {
            "detr": set(_DETR) <= set(names),
            "gfl": len(names) == 2 * len(self.decoding.strides),
            "yolox": len(names) == 1,
        }[kind]
        if not fits:
            needed = {
                "detr": ", ".join(_DETR),
                "gfl": f"{2 * len(self.decoding.strides)}: scores, then boxes of each stride",
                "yolox": "1",
            }[kind]
            raise ValueError(f"{path} gives {', '.join(names)}; needed for kind {kind}: {needed}")

    def prepare(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """The network's input (1, 3, H, W) of the one image."""
        (image,) = images
        x = self.metadata.input
        how = _INTERPOLATIONS[self.decoding.interpolation]
        if self.decoding.resize == "stretch":
            resized = cv2.resize(image, (x.width, x.height), interpolation=how)
        else:
            factor = self._factor(image)
            rows, columns = (max(1, int(side * factor)) for side in image.shape[:2])
            resized = np.full((x.height, x.width, 3), self.decoding.border, np.uint8)
            resized[:rows, :columns] = cv2.resize(image, (columns, rows), interpolation=how)
        return normalize(resized, x)[None]

    def _factor(self, image: np.ndarray) -> float:
        """From pixels of the image to those of the input, where it is fit into it."""
        x = self.metadata.input
        return min(x.height / image.shape[0], x.width / image.shape[1])

    def run(self, data: np.ndarray) -> dict[str, np.ndarray]:
        outputs = self._session.run(None, {self.input_name: data, **self._constant})
        return dict(zip(self.output_names, outputs))

    def _detect(self, images: list[np.ndarray]) -> list[Detections]:
        (image,) = images
        boxes, scores, classes = self.decode(self.run(self.prepare(images)))
        size = image.shape[:2]
        input_size = (self.metadata.input.height, self.metadata.input.width)
        if self.decoding.resize == "fit":
            boxes, input_size = boxes / self._factor(image), size
        return [
            in_image(
                *(boxes, scores, classes),
                class_names=self.class_names,
                image_size=size,
                input_size=input_size,
            )
        ]

    def decode(self, outputs: dict[str, np.ndarray]) -> Found:
        """Boxes (K, 4) in pixels of the input, scores (K,) and classes (K,), best first."""
        x = self.metadata
        if self.decoding.kind == "detr":
            labels, boxes, scores = (outputs[name] for name in _DETR)
            return _best(labels.ravel(), boxes.reshape(-1, 4), scores.ravel(), x)
        values = [y.reshape(-1, y.shape[-1]) for y in outputs.values()]  # of one picture
        if self.decoding.kind == "gfl":
            return _gfl(values, self._priors, x)
        return _yolox(values[0], self._priors, x)


def _best(labels: np.ndarray, boxes: np.ndarray, scores: np.ndarray, x: ExportMetadata) -> Found:
    """Those above the threshold, of labels (K,), boxes (K, 4) and scores (K,)."""
    order = np.argsort(-scores, kind="stable")[: x.max_detections]
    order = order[scores[order] > x.score_threshold]
    return boxes[order], scores[order], labels[order].astype(np.int64)


def _gfl(outputs: list[np.ndarray], priors: np.ndarray, x: ExportMetadata) -> Found:
    """Of the scores and box distributions of S levels, (cells, values) each, and priors (P, 3)."""
    half = len(outputs) // 2
    scores, logits = np.concatenate(outputs[:half]), np.concatenate(outputs[half:])
    some = scores.max(axis=1) > x.score_threshold
    boxes = decode_boxes(logits[some], priors[some], x.input.height, x.input.width)
    return find([boxes, scores[some]], x)


def _yolox(rows: np.ndarray, priors: np.ndarray, x: ExportMetadata) -> Found:
    """Of rows (P, 5 + C) and priors (P, 3): corners of cells and strides."""
    some = rows[:, 4] > x.score_threshold  # a class score times it is no higher
    rows, corners, strides = rows[some], priors[some, :2], priors[some, 2:]
    centres, sizes = rows[:, :2] * strides + corners, np.exp(rows[:, 2:4]) * strides
    boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1)
    return find([boxes, rows[:, 4:5] * rows[:, 5:]], x)
