"""One detector over all backends."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Union, overload

import numpy as np

from .backends import Backend, backend_of, open_backend
from .checks import check_outputs
from .decode import find
from .detections import Detections, in_image
from .images import MAX_PIXELS, check_max_pixels, load_image
from .metadata import ExportMetadata, read_metadata
from .preprocess import prepare
from .tiles import Tiles, detect_in_slices

ImageLike = Union[str, Path, np.ndarray]
MAX_BATCH = 8


class Detector:
    """Finds objects in images.

    A TorchScript file is a program, which is run: open only those that you trust. The other files
    are read without running anything they contain.

    Args:
        path: "x.onnx", "x.xml", "x.ncnn.param" or another name that a backend knows, with its
            metadata inside or beside it.
        num_threads: of the engine, 1 or more; its own choice if None. torch, which runs TorchScript
            files, has one number for all that a thread does: it is set for each call and restored
            afterwards. Threads that first use torch during a call start with it.
        score_thresh: in place of that of the model; an end2end file's own cannot be undercut.
        metadata: a json in place of that of the file, e.g. for a model of other origin.
        input_size: (height, width) of the network's input, for a dynamic file.
        max_pixels: an image file that declares more is refused before it is decoded.
        nms: "plain" or "voting" in place of the model's; an end2end file has its own in the graph.
        device: where the engine computes, one of its backend's ``devices``; the CPU if None.
        tiles: cut pictures into slices, in batches where the file is dynamic; none are cut if None.

    Attributes:
        backend: name of what runs the file, e.g. "onnxruntime".
        metadata: an ``ExportMetadata``.
        class_names: of ``class_id``.
        tiles: as given.

    Raises:
        ValueError: for an unknown name, a file without metadata or with wrong ones, a size that the
            file does not take, or a number that is out of range.
        ImportError: for an engine that is not installed.
        FileNotFoundError: if a file is not there.

    Example:
        >>> from nanodet_d2.runtime import Detector
        >>> detector = Detector("model.onnx", num_threads=2)
        >>> found = detector("street.jpg")
        >>> for box, score, name in zip(found.xyxy, found.confidence, found.names):
        ...     print(f"{name} {score:.2f}: {box}")
    """

    tiles: Tiles | None = None

    def __init__(
        self,
        path: str | Path,
        *,
        num_threads: int | None = None,
        score_thresh: float | None = None,
        metadata: str | Path | None = None,
        input_size: Sequence[int] | None = None,
        max_pixels: int = MAX_PIXELS,
        nms: str | None = None,
        device: str | None = None,
        tiles: Tiles | None = None,
    ):
        backend = open_backend(path, num_threads=num_threads, device=device)
        if metadata is None:
            beside = backend_of(path).metadata_path(path)
            found = read_metadata(path, backend.embedded, beside)
        else:
            text = Path(metadata).read_text(encoding="utf-8")
            found = ExportMetadata.from_json(text, str(metadata))
        self._use(backend, found, str(path), score_thresh, input_size, max_pixels, nms)
        self.tiles = tiles

    def _use(
        self,
        backend: Backend,
        metadata: ExportMetadata,
        path: str,
        score_thresh: float | None,
        input_size: Sequence[int] | None,
        max_pixels: int,
        nms: str | None,
    ) -> None:
        if input_size is not None:
            metadata = dataclasses.replace(metadata, input=metadata.input.resized(input_size, path))
        if score_thresh is not None:
            if not 0 <= score_thresh <= 1:
                raise ValueError(f"score_thresh {score_thresh}; allowed: 0 to 1")
            metadata = dataclasses.replace(metadata, score_threshold=float(score_thresh))
        if nms is not None:
            metadata = metadata.with_nms(nms, path)
        self._backend = backend
        self.metadata = metadata
        self.path = path
        self.max_pixels = check_max_pixels(max_pixels)
        self.backend = backend.name
        self.class_names = metadata.class_names

    # A str is a sequence of str, too; the first overload takes it.
    @overload
    def __call__(self, inputs: ImageLike) -> Detections: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, inputs: Sequence[ImageLike]) -> list[Detections]: ...
    def __call__(self, inputs: ImageLike | Sequence[ImageLike]) -> Detections | list[Detections]:
        """Detect in one image, or in each of a list.

        Args:
            inputs: a path, an array (H, W, 3) uint8 BGR, or a list of those.

        Raises:
            ValueError: for an image that cannot be read, an array of another form, or a file whose
                outputs are not those that its metadata describes.
        """
        if isinstance(inputs, (str, Path, np.ndarray)):
            return self._find([self._load(inputs)])[0]
        return [found for images in self._batches(inputs) for found in self._find(images)]

    def prepare(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """The network's input for images (H, W, 3) uint8 BGR: (N, 3, H, W) float32, normalised, or
        the one image itself for an end2end file."""
        if self.metadata.kind == "end2end":
            return np.ascontiguousarray(images[0])
        x = self.metadata.input
        planes = [prepare(image, x) for image in images]
        return planes[0][None] if len(planes) == 1 else np.stack(planes)

    def run(self, data: np.ndarray) -> dict[str, np.ndarray]:
        """The network alone: outputs by name, of what :meth:`prepare` returns.

        Raises:
            ValueError: if the outputs are not those that the metadata describes.
        """
        outputs = self._backend(data)
        count, size = (len(data), data.shape[2:]) if data.ndim == 4 else (1, data.shape[:2])
        check_outputs(outputs, self.metadata, count, size, self.path)
        names = self.metadata.outputs if len(outputs) == len(self.metadata.outputs) else ["output"]
        return dict(zip(names, outputs))

    def raw(self, image: ImageLike) -> dict[str, np.ndarray]:
        """Outputs of the network by name, for one image, before any post-processing."""
        return self.run(self.prepare([self._load(image)]))

    def _load(self, source: ImageLike) -> np.ndarray:
        return load_image(source, max_pixels=self.max_pixels)

    def _batches(self, inputs: Sequence[ImageLike]) -> Iterator[list[np.ndarray]]:
        size = self._batch_size if self.tiles is None else 1
        for start in range(0, len(inputs), size):
            yield [self._load(x) for x in inputs[start : start + size]]

    @property
    def _batch_size(self) -> int:
        return MAX_BATCH if self.metadata.input.dynamic else 1

    def _find(self, images: list[np.ndarray]) -> list[Detections]:
        """In one batch, or each in slices."""
        if self.tiles is None:
            return self._detect(images)
        batch, threshold = self._batch_size, self.metadata.nms_threshold
        return [
            detect_in_slices(self._detect, x, self.tiles, batch=batch, nms_threshold=threshold)
            for x in images
        ]

    def _detect(self, images: list[np.ndarray]) -> list[Detections]:
        outputs = list(self.run(self.prepare(images)).values())
        x = self.metadata
        if x.kind == "end2end":
            boxes, scores, classes = outputs
            kept = scores > x.score_threshold
            return [
                in_image(
                    *(boxes[kept], scores[kept], classes[kept]),
                    class_names=x.class_names,
                    image_size=images[0].shape[:2],
                )
            ]
        return [
            in_image(
                *find(single, x),
                class_names=x.class_names,
                image_size=image.shape[:2],
                input_size=(x.input.height, x.input.width),
                resize=x.input.resize,
            )
            for image, *single in zip(images, *outputs)
        ]
