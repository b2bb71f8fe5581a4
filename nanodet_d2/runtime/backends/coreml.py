"""Core ML. On a Mac it runs the files; elsewhere torch computes what they say, to check them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from ..metadata import METADATA_KEY
from .base import Backend
from .mil import Program
from .quiet import STDERR, STDOUT, silence

MAC = sys.platform == "darwin"


class CoreMl(Backend):
    """Its files are folders, which a Mac shows as files. On a Mac it was not tried."""

    format = "coreml"
    name = "coreml" if MAC else "torch in place of coreml"
    package = "coremltools"
    suffix = ".mlpackage"
    devices = ("cpu", "all") if MAC else ("cpu",)
    stands_in = not MAC

    def __init__(self, path: str, num_threads: int | None, device: str):
        with silence(STDOUT, STDERR):  # that it is no Mac, in many words
            import coremltools

            units = coremltools.ComputeUnit
            self.model = coremltools.models.MLModel(
                path,
                compute_units=units.ALL if device == "all" else units.CPU_ONLY,
                skip_model_load=not MAC,
            )
            self._program = None if MAC else Program(self.model, path, num_threads)
        self._spec = self.model.get_spec().description
        self.embedded = self.model.user_defined_metadata.get(METADATA_KEY)

    def __call__(self, data: np.ndarray) -> list[np.ndarray]:
        if self._program is not None:
            return self._program(data)
        outputs = self.model.predict({self._spec.input[0].name: data})
        return [outputs[x.name] for x in self._spec.output]

    @classmethod
    def is_there(cls, path: str | Path) -> bool:
        return Path(path).is_dir()

    @classmethod
    def size(cls, path: str | Path) -> int:
        return sum(x.stat().st_size for x in Path(path).rglob("*") if x.is_file())
