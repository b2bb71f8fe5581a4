"""What runs exported files: a module for each engine, which is imported when it is used.

A module that holds a subclass of :class:`Backend` is found by itself; its class says which files it
runs. Nothing else lists them.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from pathlib import Path

from .base import Backend, require_packages, require_threads

__all__ = ["Backend", "backend_of", "backends", "open_backend", "require_packages"]


@functools.cache
def backends() -> dict[str, type[Backend]]:
    """All backends by the format of their files. Their engines are not imported."""
    found: dict[str, type[Backend]] = {}
    for name in sorted(x.name for x in pkgutil.iter_modules(__path__)):
        module = importlib.import_module(f"{__name__}.{name}")
        for kind in vars(module).values():
            if isinstance(kind, type) and issubclass(kind, Backend) and kind is not Backend:
                found[kind.format] = kind
    return found


def backend_of(path: str | Path) -> type[Backend]:
    """The backend that runs a file, by its name.

    Raises:
        ValueError: for another name; the message lists the known ones.
    """
    able = [backend for backend in backends().values() if backend.stem(path) is not None]
    if able:  # of ".onnx" and ".tensorrt.onnx" the longer one
        return min(able, key=lambda backend: len(str(backend.stem(path))))
    known = ", ".join(f"*{backend.suffix}" for backend in backends().values())
    raise ValueError(f"{path} is no exported file; known names: {known}")


def open_backend(
    path: str | Path, *, num_threads: int | None = None, device: str | None = None
) -> Backend:
    """The backend of a file's format, with the file loaded.

    A TorchScript file is a program, which this runs: open only files that you trust, however they
    are verified otherwise. The other formats describe a graph of known operators.

    Args:
        num_threads: of the engine, 1 or more; its own choice if None.
        device: one of the backend's ``devices``; the first of them if None.

    Raises:
        ValueError: for an unknown name or device, or a number of threads below 1.
        ImportError: for an engine that is not installed.
        FileNotFoundError: if there is no such file.
    """
    backend = backend_of(path)
    require_threads(num_threads)
    if device is not None and device not in backend.devices:
        allowed = ", ".join(backend.devices)
        raise ValueError(f"device {device!r} with {backend.name}; allowed: {allowed}")
    require_packages([backend.needs()], f"running {path}")
    if not backend.is_there(path):
        raise FileNotFoundError(f"exported file {path} not found")
    return backend(str(path), num_threads, device or backend.devices[0])
