"""One detector over all backends: an exported file, or a config with its checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Union

import cv2
import numpy as np
import torch
from detectron2.modeling import detector_postprocess
from detectron2.structures import Boxes, Instances

from nanodet_d2.data.images import MAX_PIXELS, check_max_pixels, read_image
from nanodet_d2.data.warp import WarpTransform, warp_matrix
from nanodet_d2.export.checks import check_outputs
from nanodet_d2.export.decode_numpy import detect, select
from nanodet_d2.export.metadata import ExportMetadata, InputDescription, read_metadata
from nanodet_d2.export.network import load_model, network
from nanodet_d2.export.runtimes import Runtime, open_model, require_threads, torch_threads

ImageLike = Union[str, Path, np.ndarray]
MAX_BATCH = 8
MODEL_HELP = (  # of commands that take a path for ``Detector``
    "an exported file, or a config; configs and TorchScript files are programs: run only those "
    "that you trust"
)


class Detector:
    """Finds objects in images.

    A config and a TorchScript file are programs, which are run: open only those that you trust.
    The other files, and checkpoints, are read without running anything they contain.

    Args:
        path: "x.onnx", "x.xml", "x.ncnn.param" or "x.torchscript.pt", with its metadata inside or
            beside it; or a lazy config, "x.py".
        weights: the config's checkpoint.
        num_threads: of the runtime, 1 or more; its own choice if None. torch, which runs configs
            and TorchScript files, has one number for the whole process: it is set for each call
            and restored afterwards.
        score_thresh: in place of that of the model; an end2end file's own cannot be undercut.
        metadata: a json in place of that of the file, e.g. for a model of other origin.
        input_size: (height, width) of the network's input, for a config or a dynamic file.
        max_pixels: an image file that declares more is refused before it is decoded.

    Attributes:
        backend: "onnxruntime", "openvino", "ncnn", "torchscript" or "pytorch".
        metadata: an ``ExportMetadata``.
        class_names: of ``pred_classes``.

    Raises:
        ValueError: for an unknown name, a file without metadata or with wrong ones, a missing
            package, a checkpoint that does not fit, a size that the file does not take, or a
            number that is out of range.
        FileNotFoundError: if a file is not there.
    """

    def __init__(
        self,
        path: str | Path,
        weights: str | Path | None = None,
        *,
        num_threads: int | None = None,
        score_thresh: float | None = None,
        metadata: str | Path | None = None,
        input_size: Sequence[int] | None = None,
        max_pixels: int = MAX_PIXELS,
    ):
        self.max_pixels = check_max_pixels(max_pixels)
        self.path = str(path)
        if str(path).endswith(".py"):
            if weights is None:
                raise ValueError(f"{path} is a config and needs weights, a checkpoint")
            runtime = PyTorch(str(path), str(weights), num_threads, input_size)
            found = runtime.metadata
        else:
            if weights is not None:
                raise ValueError(f"{path} has its own weights; allowed with weights: a config")
            runtime = open_model(path, num_threads=num_threads)
            if metadata is not None:
                text = Path(metadata).read_text(encoding="utf-8")
                found = ExportMetadata.from_json(text, str(metadata))
            else:
                found = read_metadata(path, runtime.embedded)
            found = _resized(found, input_size, str(path))
        self._runtime: Runtime = runtime
        if score_thresh is not None:
            found = dataclasses.replace(found, score_threshold=float(score_thresh))
        self.metadata = found
        self.backend = runtime.backend
        self.class_names = list(found.class_names)

    def __call__(self, inputs: ImageLike | Sequence[ImageLike]) -> Instances | list[Instances]:
        """Detect in one image, or in each of a list.

        Args:
            inputs: a path, an array (H, W, 3) uint8 BGR, or a list of those.

        Returns:
            ``Instances`` with ``pred_boxes`` (XYXY, pixels of the image), ``scores`` and
            ``pred_classes``, best first; a list of them for a list.

        Raises:
            ValueError: for an image that cannot be read, an array of another form, or a file whose
                outputs are not those that its metadata describes.
        """
        if isinstance(inputs, (str, Path, np.ndarray)):
            return self._batch([self._load(inputs)])[0]
        size = MAX_BATCH if self.metadata.input.dynamic else 1
        results: list[Instances] = []
        for start in range(0, len(inputs), size):
            results += self._batch([self._load(x) for x in inputs[start : start + size]])
        return results

    def prepare(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """The network's input for images (H, W, 3) uint8 BGR: (N, 3, H, W) float32, normalised, or
        the one image itself for an end2end file."""
        if self.metadata.kind == "end2end":
            return np.ascontiguousarray(images[0])
        x = self.metadata.input
        return np.stack([normalize(stretch(image, x.height, x.width), x) for image in images])

    def run(self, data: np.ndarray) -> dict[str, np.ndarray]:
        """The network alone: outputs by name, of what :meth:`prepare` returns.

        Raises:
            ValueError: if the outputs are not those that the metadata describes.
        """
        outputs = self._runtime(data)
        count, size = (len(data), data.shape[2:]) if data.ndim == 4 else (1, data.shape[:2])
        check_outputs(outputs, self.metadata, count, size, self.path)
        names = self.metadata.outputs if len(outputs) == len(self.metadata.outputs) else ["output"]
        return dict(zip(names, outputs))

    def raw(self, image: ImageLike) -> dict[str, np.ndarray]:
        """Outputs of the network by name, for one image, before any post-processing."""
        return self.run(self.prepare([self._load(image)]))

    def _load(self, source: ImageLike) -> np.ndarray:
        return load_image(source, max_pixels=self.max_pixels)

    def _batch(self, images: list[np.ndarray]) -> list[Instances]:
        outputs = list(self.run(self.prepare(images)).values())
        if self.metadata.kind == "end2end":
            boxes, scores, classes = outputs
            kept = scores > self.metadata.score_threshold
            return [_instances((boxes[kept], scores[kept], classes[kept]), images[0].shape[:2])]
        x = self.metadata.input
        return [
            detector_postprocess(
                _instances(self._select(*single), (x.height, x.width)), *image.shape[:2]
            )
            for image, *single in zip(images, *outputs)
        ]

    def _select(self, *outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Detections (boxes in pixels of the input, scores, classes) of one image's outputs."""
        x = self.metadata
        limits = (x.score_threshold, x.nms_threshold, x.max_detections)
        if x.kind == "decoded":
            boxes, scores = outputs
            return select(scores, boxes, *limits)
        return detect(outputs[0], x.strides, x.reg_max, x.input.height, x.input.width, *limits)


class PyTorch(Runtime):
    """A config's own model, as it evaluates, as a runtime of the raw kind."""

    backend = "pytorch"

    def __init__(
        self,
        config_file: str,
        weights: str,
        num_threads: int | None,
        input_size: Sequence[int] | None,
    ):
        require_threads(num_threads)
        self.num_threads = num_threads
        loaded = load_model(config_file, weights, input_size=input_size)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.network = network(loaded.model, "raw").to(device, memory_format=torch.channels_last)
        self.device = device
        described = dataclasses.replace(loaded.metadata.input, dynamic=True)
        self.metadata = dataclasses.replace(loaded.metadata, input=described)

    def __call__(self, data: np.ndarray) -> list[np.ndarray]:
        with torch_threads(self.num_threads), torch.inference_mode():
            return [self.network(torch.from_numpy(data).to(self.device)).cpu().numpy()]


def load_image(source: ImageLike, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """An image (H, W, 3) uint8 BGR from a path, as training reads it; arrays are checked.

    Raises:
        ValueError: as in the class.
    """
    if not isinstance(source, np.ndarray):
        return read_image({"file_name": str(source)}, "BGR", max_pixels=max_pixels)
    if source.ndim != 3 or source.shape[2] != 3 or source.dtype != np.uint8 or not source.size:
        raise ValueError(
            f"image of shape {source.shape}, {source.dtype}; allowed: (height, width, 3), uint8"
        )
    return source


def stretch(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize as the evaluation does, pixels addressed by their index."""
    matrix = warp_matrix(image.shape[:2], (height, width))
    return WarpTransform(matrix, height, width).apply_image(image)


def normalize(image: np.ndarray, description: InputDescription) -> np.ndarray:
    """An image (H, W, 3) uint8 BGR as the network's input (3, H, W)."""
    if description.channel_order == "RGB":
        image = image[..., ::-1]
    planes = zip(cv2.split(image), np.float32(description.mean), np.float32(description.std))
    return np.stack([(plane - mean) / std for plane, mean, std in planes])


def _instances(
    detections: tuple[np.ndarray, np.ndarray, np.ndarray], size: tuple[int, int]
) -> Instances:
    boxes, scores, classes = (torch.from_numpy(np.ascontiguousarray(x)) for x in detections)
    found = Instances(tuple(size))
    found.pred_boxes = Boxes(boxes.float().reshape(-1, 4))
    found.scores = scores.float()
    found.pred_classes = classes.long()
    return found[found.pred_boxes.nonempty()]


def _resized(metadata: ExportMetadata, size: Sequence[int] | None, path: str) -> ExportMetadata:
    x = metadata.input
    if size is None or tuple(size) == (x.height, x.width):
        return metadata
    if not x.dynamic:
        raise ValueError(
            f"{path} takes an input of {x.height} x {x.width} only, found input_size {list(size)};"
            " export it with --dynamic"
        )
    return dataclasses.replace(
        metadata, input=dataclasses.replace(x, height=int(size[0]), width=int(size[1]))
    )
