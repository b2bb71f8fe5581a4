"""The detector over everything that can detect: exported files, checkpoints, configs, modules."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Union

import numpy as np
import torch

from nanodet_d2 import runtime
from nanodet_d2.export.loading import LoadedModel, load_model
from nanodet_d2.export.network import export_network
from nanodet_d2.resolve import is_source
from nanodet_d2.runtime.backends import Backend
from nanodet_d2.runtime.backends.base import require_threads
from nanodet_d2.runtime.backends.torchscript import torch_threads
from nanodet_d2.runtime.images import MAX_PIXELS
from nanodet_d2.runtime.tiles import Tiles

SOURCE_HELP = (  # of commands that take what ``Detector`` takes
    "an exported file, or a config with --weights; configs and TorchScript files are programs: run "
    "only those that you trust"
)


class Detector(runtime.Detector):
    """``nanodet_d2.runtime.Detector``, which runs models of PyTorch as well.

    A config is a program, which is run: open only those that you trust.

    Args:
        source: an exported file; a checkpoint that a training wrote; a name of the zoo; a config;
            or a model that ``load_model`` has loaded.
        weights: a checkpoint in place of the source's own; a config needs it.
        device: of torch for configs, "cuda" where there is one if None; else of the file's backend.
        options: of the class above; ``input_size`` is free for configs.

    Raises:
        ValueError, ImportError, FileNotFoundError: as in the class above, and for a checkpoint that
            does not fit.

    Example:
        >>> from nanodet_d2 import Detector
        >>> found = Detector("nanodet-plus-m-416")("street.jpg")  # the official weights
        >>> found = Detector("output/my_data/model_best.pth", score_thresh=0.3)("street.jpg")
        >>> instances = found.to_instances()  # as detectron2 has them
    """

    def __init__(
        self,
        source: Union[str, Path, LoadedModel],
        weights: str | Path | None = None,
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
        if isinstance(source, LoadedModel) or is_source(str(source)):
            loaded = source
            if not isinstance(loaded, LoadedModel):
                checkpoint = None if weights is None else str(weights)
                loaded = load_model(str(source), checkpoint, input_size=input_size)
            backend = PyTorch(loaded, num_threads, device)
            described = dataclasses.replace(loaded.metadata.input, dynamic=True)
            found = dataclasses.replace(loaded.metadata, input=described)
            self._use(backend, found, found.name, score_thresh, input_size, max_pixels, nms)
            self.tiles = tiles
            return
        if weights is not None:
            raise ValueError(f"{source} has its own weights; allowed with weights: a config")
        super().__init__(
            source,
            num_threads=num_threads,
            score_thresh=score_thresh,
            metadata=metadata,
            input_size=input_size,
            max_pixels=max_pixels,
            nms=nms,
            device=device,
            tiles=tiles,
        )


class PyTorch(Backend):
    """A model as it evaluates, as a backend of the raw kind."""

    name = "pytorch"

    def __init__(self, loaded: LoadedModel, num_threads: int | None, device: str | None):
        require_threads(num_threads)
        self.num_threads = num_threads
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        net: Any = export_network(loaded.model, "raw")  # older torch knows no memory_format
        self.network = net.to(self.device, memory_format=torch.channels_last)

    def __call__(self, data: np.ndarray) -> list[np.ndarray]:
        with torch_threads(self.num_threads), torch.inference_mode():
            return [self.network(torch.from_numpy(data).to(self.device)).cpu().numpy()]
