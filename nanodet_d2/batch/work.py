"""What all processes of a run have to agree on: the model, its contract, versions, settings."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import nanodet_d2
from nanodet_d2.conformance.contract import contract_of
from nanodet_d2.runtime import Detector
from nanodet_d2.runtime.backends import backend_of, backends

HEADER_VERSION = 1
_CHUNK = 1 << 20
_SHOWN = 40  # characters of a value in an error


@dataclasses.dataclass(frozen=True)
class Work:
    """How a process gets its detector. It travels to other processes and machines.

    Attributes:
        open_model: opens it; something that can be pickled, as a ``functools.partial``.
        threads: of the engine and of OpenCV, in each process.
        device: where the engine computes; the model's own choice if None.
        folder: that relative paths start from.
        header: what the detector has to be, see :func:`header_of`; unknown at first.
    """

    open_model: Callable[[], Detector]
    threads: int
    folder: str
    device: str | None = None
    header: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def key(self) -> str:
        """Hash of the header."""
        return _hash(self.header)

    def open(self) -> Detector:
        """The detector, if it is the one of the header, where that is known.

        Raises:
            ValueError: if another model or other versions are on this machine; and as ``Detector``.
        """
        detector = self.open_model()
        if self.header:
            require_same(self._header_of(detector), self.header, "what this process has opened")
        return detector

    def described(self, detector: Detector) -> Work:
        """The same with the header of a detector."""
        return dataclasses.replace(self, header=self._header_of(detector))

    def _header_of(self, detector: Detector) -> dict[str, Any]:
        return header_of(detector, threads=self.threads, device=self.device)


def header_of(detector: Detector, *, threads: int, device: str | None) -> dict[str, Any]:
    """All that rows follow from besides the pictures, as json has it.

    It has neither a path nor a time, and nothing of how the work is shared out.
    """
    of_a_file = any(detector.backend == x.name for x in backends().values())
    kind = backend_of(detector.path) if of_a_file else None
    files = [] if kind is None else [x for x in kind.files(detector.path) if x.exists()]
    name = Path(detector.path).name
    format, engine = ("torch", "torch") if kind is None else (kind.format, kind.needs())
    contract = contract_of(detector.metadata, file=name, format=format)
    header = {
        "header_version": HEADER_VERSION,
        "model": {"file": name, "sha256": {x.name: hash_of(x) for x in files}},
        "contract": contract,
        "contract_sha256": _hash(contract),
        "threads": threads,
        "device": device,
        "max_pixels": detector.max_pixels,
        "versions": {
            "nanodet_d2": nanodet_d2.__version__,
            "numpy": np.__version__,
            "opencv": cv2.__version__,
            "pillow": _version("pillow"),
            engine: _version(engine),
        },
    }
    plain: dict[str, Any] = json.loads(json.dumps(header))
    return plain


def require_same(found: dict[str, Any], expected: dict[str, Any], what: str) -> None:
    """Raise ``ValueError`` naming the entries in which two headers differ."""
    pairs = list(_differences(found, expected))
    if pairs:
        raise ValueError(f"{what} is not what the run began with: {'; '.join(pairs)}")


def _differences(found: Any, expected: Any, name: str = "") -> Iterator[str]:
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in {**expected, **found}:
            if key != "contract_sha256":  # of what is told entry by entry
                yield from _differences(found.get(key), expected.get(key), f"{name}.{key}")
    elif found != expected:
        yield f"{name[1:]} {str(found)[:_SHOWN]}, not {str(expected)[:_SHOWN]}"


def hash_of(path: Path) -> str:
    """SHA-256 of a file; of a folder, which some formats are, of all that is in it."""
    found = hashlib.sha256()
    files = sorted(x for x in path.rglob("*") if x.is_file()) if path.is_dir() else [path]
    for file in files:
        if path.is_dir():
            found.update(f"{file.relative_to(path).as_posix()}\0{file.stat().st_size}\0".encode())
        with open(file, "rb") as content:
            while chunk := content.read(_CHUNK):
                found.update(chunk)
    return found.hexdigest()


def _hash(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _version(package: str) -> str | None:
    """Of what is installed; None of what is not, or of another name than its module's."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return None
