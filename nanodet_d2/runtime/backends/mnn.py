"""MNN."""

from __future__ import annotations

from typing import Any

import numpy as np

from .base import Backend
from .quiet import STDOUT, silence


class Mnn(Backend):
    format = "mnn"
    name = "MNN"
    suffix = ".mnn"

    def __init__(self, path: str, num_threads: int | None, device: str):
        with silence(STDOUT):  # it tells what the processor can do
            import MNN
            import MNN.expr

            # float32 on processors that would otherwise compute in float16
            options: dict[str, Any] = {"backend": "CPU", "precision": "high"}
            if num_threads:
                options["numThread"] = num_threads
            runtime = MNN.nn.create_runtime_manager((options,))
            try:
                # without names: those of the file
                self.module = MNN.nn.load_module_from_file(path, [], [], runtime_manager=runtime)
            except SystemError as error:
                raise ValueError(f"MNN cannot load {path}") from error
        self._expr = MNN.expr
        # The converter's free text. That of files of other origin may be anything.
        text = self.module.get_info()["bizCode"]
        self.embedded = text if text.startswith("{") else None

    def __call__(self, data: np.ndarray) -> list[np.ndarray]:
        given = self._expr.const(np.ascontiguousarray(data), list(data.shape), self._expr.NCHW)
        return [np.array(output.read()) for output in self.module.forward([given])]
