"""LiteRT, formerly TensorFlow Lite."""

from __future__ import annotations

import zipfile

import numpy as np

from ..metadata import METADATA_KEY
from .base import Backend

METADATA_FILE = f"{METADATA_KEY}.json"  # in a zip archive behind the model


class LiteRt(Backend):
    format = "litert"
    name = "litert"
    package = "ai_edge_litert"
    suffix = ".tflite"

    def __init__(self, path: str, num_threads: int | None, device: str):
        from ai_edge_litert.interpreter import Interpreter

        self.interpreter = Interpreter(path, num_threads=num_threads)
        self.interpreter.allocate_tensors()
        (given,) = self.interpreter.get_input_details()
        self._input = given["index"]
        self._outputs = [x["index"] for x in self.interpreter.get_output_details()]
        self._channels_last = given["shape"][-1] == 3
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if METADATA_FILE in archive.namelist():
                    self.embedded = archive.read(METADATA_FILE).decode()

    def __call__(self, data: np.ndarray) -> list[np.ndarray]:
        if self._channels_last:
            data = np.ascontiguousarray(data.transpose(0, 2, 3, 1))
        self.interpreter.set_tensor(self._input, data)
        self.interpreter.invoke()
        return [self.interpreter.get_tensor(index) for index in self._outputs]
