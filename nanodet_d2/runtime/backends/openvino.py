"""OpenVINO."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from ..metadata import METADATA_KEY
from .base import Backend


@functools.cache
def core() -> Any:
    """The process's one ``openvino.Core``, which is never given up.

    On processors with AMX a core gives the thread that makes it another stack for signals, and
    takes its memory back when it ends. Where that happens in another thread, as the garbage
    collector may have it, the next signal with a handler ends the process.
    """
    import openvino

    return openvino.Core()


class OpenVino(Backend):
    format = "openvino"
    name = "openvino"
    suffix = ".xml"
    weights_suffix = ".bin"
    devices = ("cpu", "gpu", "npu", "auto")

    def __init__(self, path: str, num_threads: int | None, device: str):
        there = {name.partition(".")[0].lower() for name in core().available_devices}
        if device not in there | {"auto"}:
            raise ValueError(f"device {device!r}: this openvino has {', '.join(sorted(there))}")
        model = core().read_model(path)
        if model.has_rt_info([METADATA_KEY]):
            self.embedded = model.get_rt_info([METADATA_KEY]).value
        # float32 on processors, too, whose matrix units would otherwise compute in bfloat16
        options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        if num_threads:
            options["INFERENCE_NUM_THREADS"] = num_threads
        self.model = core().compile_model(model, device.upper(), options)
        self.request = self.model.create_infer_request()

    def __call__(self, data: np.ndarray) -> list[np.ndarray]:
        results = self.request.infer([data], share_inputs=True)
        return [results[output].copy() for output in self.model.outputs]
