"""ONNX Runtime."""

from __future__ import annotations

import numpy as np

from ..metadata import METADATA_KEY
from .base import Backend

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
}


class OnnxRuntime(Backend):
    format = "onnx"
    name = "onnxruntime"
    suffix = ".onnx"
    devices = tuple(PROVIDERS)

    def __init__(self, path: str | bytes, num_threads: int | None, device: str):
        import onnxruntime

        there = onnxruntime.get_available_providers()
        if PROVIDERS[device] not in there:  # it would quietly take the CPU
            raise ValueError(f"device {device!r}: this onnxruntime has {', '.join(there)} only")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads or 0
        options.log_severity_level = 3  # its warnings are about nodes that it can do without
        self.session = onnxruntime.InferenceSession(path, options, providers=[PROVIDERS[device]])
        self.input_name = self.session.get_inputs()[0].name
        self.embedded = self.session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)

    def __call__(self, data: np.ndarray) -> list[np.ndarray]:
        return self.session.run(None, {self.input_name: data})
