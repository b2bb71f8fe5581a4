"""TorchScript; the only backend for which torch is imported."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np

from ..metadata import METADATA_KEY
from .base import Backend


class TorchScript(Backend):
    """Runs a program that lies in the file: torch does not limit what it may do."""

    format = "torchscript"
    name = "torchscript"
    package = "torch"
    suffix = ".torchscript.pt"
    devices = ("cpu", "cuda", "mps")

    def __init__(self, path: str, num_threads: int | None, device: str):
        import torch

        self._torch, self._threads, self._device = torch, num_threads, device
        extra = {METADATA_KEY: ""}
        self.module = torch.jit.load(path, map_location=device, _extra_files=extra)
        found = extra[METADATA_KEY]
        self.embedded = found.decode() if isinstance(found, bytes) else found

    def __call__(self, data: np.ndarray) -> list[np.ndarray]:
        with torch_threads(self._threads), self._torch.inference_mode():
            outputs = self.module(self._torch.from_numpy(data).to(self._device))
        outputs = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
        return [x.cpu().numpy() for x in outputs]


@contextlib.contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """In here torch computes with so many threads; as many as before if None.

    torch holds the number for each thread that calls it, and lets one that is new start with the
    number that was set last: so it is also that of threads that begin in the meantime. It is
    restored afterwards.
    """
    import torch

    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
