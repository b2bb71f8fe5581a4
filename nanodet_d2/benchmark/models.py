"""The files to measure."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nanodet_d2.predictor import Detector
from nanodet_d2.runtime.backends import backend_of, backends

logger = logging.getLogger(__name__)


@dataclasses.dataclass
class Model:
    """A file to measure, with what was found out about it."""

    name: str
    path: Path
    weights: str | None = None
    metadata: Path | None = None
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)

    def open(self, threads: int | None) -> Detector:
        return Detector(self.path, self.weights, metadata=self.metadata, num_threads=threads)

    def size(self) -> int:
        """Bytes of the model and its weights; of PyTorch's, of the checkpoint if it is a file."""
        if self.weights is None and _is_exported(self.path):
            return backend_of(self.path).size(self.path)
        checkpoint = Path(self.weights or self.path)
        return checkpoint.stat().st_size if checkpoint.is_file() else 0


def _is_exported(path: Path) -> bool:
    return any(backend.stem(path) for backend in backends().values())


def find_models(folder: Path) -> list[Model]:
    """Everything in a folder that may be an exported file.

    Raises:
        ValueError: if there is none, or no such folder.
    """
    found = sorted(path for path in folder.glob("*") if _is_exported(path))
    if not found:
        known = ", ".join(x.suffix for x in backends().values())
        raise ValueError(f"no exported files in {folder}; looked for {known}")
    return [Model(path.name, path) for path in found]


def foreign_model(path: Path, metadata: Path) -> Model:
    """A model of other origin, which a json describes.

    Raises:
        FileNotFoundError: if a file is not there.
    """
    for file in (path, metadata):
        if not file.is_file():
            raise FileNotFoundError(f"{file} not found")
    return Model(path.name, path, metadata=metadata)


def usable(
    models: Sequence[Model], image: np.ndarray, skipped: list[dict[str, str]]
) -> list[Model]:
    """The models that open and run; the others are named, and added to ``skipped``."""
    kept = []
    for model in models:
        try:
            detector = model.open(None)
            found = len(detector(image))
        except Exception as error:  # every runtime has its own
            reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            logger.error("Left out: %s: %s", model.name, reason)
            skipped.append({"file": model.name, "reason": reason})
            continue
        x = detector.metadata
        model.facts = {"file": model.name, "backend": detector.backend, "kind": x.kind,
                       "input": [x.input.height, x.input.width], "bytes": model.size(),
                       "detections": found}  # fmt: skip
        kept.append(model)
    return kept
