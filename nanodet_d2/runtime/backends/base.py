"""What a backend is: it runs the files of one format, and knows their names."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Optional

import numpy as np


class Backend:
    """A loaded file behind one call: arrays in, arrays out.

    Letters: N images, P priors, C classes, R reg_max.

    Attributes:
        format: name of the format of its files.
        name: of what runs them.
        package: that it is imported from, if it has another name.
        suffix: how the names of its files end; ``other_suffixes``: how others name theirs.
        weights_suffix: of a second file, with the weights: it replaces the last suffix.
        devices: what ``device`` may be, the first by default.
        stands_in: whether it computes in another engine's place, whose speed it does not have.
        embedded: the metadata json inside the file, if any.
    """

    format: ClassVar[str]
    name: ClassVar[str]
    package: ClassVar[Optional[str]] = None
    suffix: ClassVar[str]
    other_suffixes: ClassVar[tuple[str, ...]] = ()
    weights_suffix: ClassVar[Optional[str]] = None
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    stands_in: ClassVar[bool] = False
    embedded: str | None = None

    def __init__(self, path: str, num_threads: int | None, device: str):
        raise NotImplementedError

    def __call__(self, data: np.ndarray) -> list[np.ndarray]:
        """The outputs, in the metadata's order, for the input: (N, 3, H, W) float32, normalised,
        or of an end2end file an image (H, W, 3) uint8."""
        raise NotImplementedError

    @classmethod
    def needs(cls) -> str:
        """The package that has to be installed."""
        return cls.package or cls.name

    @classmethod
    def stem(cls, path: str | Path) -> str | None:
        """The path without the suffix; None if it is no name of this format."""
        for suffix in (cls.suffix, *cls.other_suffixes):
            if str(path).endswith(suffix):
                return str(path)[: -len(suffix)]
        return None

    @classmethod
    def metadata_path(cls, path: str | Path) -> Path:
        """The json beside a file: ``model.onnx`` has ``model.onnx.json``, ``model.xml``
        ``model.openvino.json``, ``model.ncnn.param`` ``model.ncnn.json``, and so on."""
        return Path(f"{cls.stem(path)}.{cls.format}.json")

    @classmethod
    def files(cls, path: str | Path) -> list[Path]:
        """All files of a model: the one that ``Detector`` takes, that of its weights, the json."""
        weights = [] if cls.weights_suffix is None else [Path(path).with_suffix(cls.weights_suffix)]
        return [Path(path), *weights, cls.metadata_path(path)]

    @classmethod
    def is_there(cls, path: str | Path) -> bool:
        """Whether there is such a file, or what is one for this format."""
        return Path(path).is_file()

    @classmethod
    def size(cls, path: str | Path) -> int:
        """Bytes of the model and its weights."""
        return sum(x.stat().st_size for x in cls.files(path)[:-1])  # the last is the json


def require_threads(count: int | None) -> None:
    """Raise ``ValueError`` for a number of threads below 1; None leaves the choice."""
    if count is not None and count < 1:
        raise ValueError(f"num_threads {count}; allowed: 1 or more")


def require_packages(packages: Iterable[str], purpose: str) -> None:
    """Raise ``ImportError`` naming the packages that are not installed, all at once."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"{purpose} needs {', '.join(missing)}, not installed here: "
            f"pip install {' '.join(missing)}"
        )
