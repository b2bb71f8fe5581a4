"""ExecuTorch. Its Python package needs torch; its C++, Android and Apple runtimes do not."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ..metadata import METADATA_KEY
from .base import Backend
from .quiet import STDERR, STDOUT, silence


class ExecuTorch(Backend):
    """Its number of threads is one of the process. A loaded method holds on to the threads that
    there were, and would wait for them forever: it is loaded again after any file has changed their
    number. So let no two threads run such files with different ones.
    """

    format = "executorch"
    name = "executorch"
    suffix = ".pte"
    _changes: ClassVar[int] = 0  # of the number of threads, by all files

    def __init__(self, path: str, num_threads: int | None, device: str):
        self._path, self._threads = path, num_threads
        with silence(STDOUT, STDERR):  # what it does not know of the processor
            import torch
            from executorch.extension.pybindings import portable_lib

            self._torch, self._pool = torch, portable_lib
        try:
            program = self._load()
        except RuntimeError as error:
            raise ValueError(f"executorch cannot load {path}: {error}") from error
        if METADATA_KEY in program.method_names:
            (self.embedded,) = program.load_method(METADATA_KEY).execute([])

    def __call__(self, data: np.ndarray) -> list[np.ndarray]:
        if self._loaded_at != ExecuTorch._changes or self._wants_other_threads():
            self._load()
        return [x.numpy() for x in self._method.execute([self._torch.from_numpy(data)])]

    def _wants_other_threads(self) -> bool:
        return self._threads not in (None, self._pool._threadpool_get_thread_count())

    def _load(self) -> Any:
        """The program, whose method is loaded; another one each time, as it keeps its methods."""
        from executorch.runtime import Runtime, Verification

        with silence(STDOUT, STDERR):
            if self._wants_other_threads():
                self._pool._unsafe_reset_threadpool(self._threads)
                ExecuTorch._changes += 1
            checked = Verification.InternalConsistency
            program = Runtime.get().load_program(self._path, verification=checked)
            self._method = program.load_method("forward")
        self._loaded_at = ExecuTorch._changes
        return program
