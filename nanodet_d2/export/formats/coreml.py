"""Core ML programs for iOS 15, macOS 12 and later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nanodet_d2.runtime.backends.coreml import CoreMl
from nanodet_d2.runtime.backends.quiet import STDERR, STDOUT, silence
from nanodet_d2.runtime.metadata import METADATA_KEY, ExportMetadata

from .base import Format, Material

DEBUG = "executorch_debug_handle_mapping.json"  # which nothing reads that runs the file


class CoreMlFormat(Format):
    """Its input is a tensor: Core ML's images have one scale for all channels."""

    backend = CoreMl
    packages = ("coremltools",)
    options = ("fp16",)

    def write(
        self, products: Material, path: Path, metadata: ExportMetadata, *, fp16: bool, int8: bool
    ) -> None:
        program = products.program(metadata).run_decompositions({})
        with silence(STDOUT, STDERR):  # what it lacks outside a Mac, progress, versions
            model = program_to_coreml(program, metadata, fp16=fp16)
            model.user_defined_metadata[METADATA_KEY] = metadata.to_json()
            model.save(str(path))
        (path / DEBUG).unlink(missing_ok=True)


def program_to_coreml(program: Any, metadata: ExportMetadata, *, fp16: bool) -> Any:
    """The ``coremltools.models.MLModel`` of a ``torch.export`` program.

    Args:
        fp16: weights and what is computed are of half precision.
    """
    import coremltools

    x, precision = metadata.input, coremltools.precision
    return coremltools.convert(
        program,
        inputs=[coremltools.TensorType(x.name, (1, 3, x.height, x.width), dtype=np.float32)],
        outputs=[coremltools.TensorType(name, dtype=np.float32) for name in metadata.outputs],
        minimum_deployment_target=coremltools.target.iOS15,
        compute_precision=precision.FLOAT16 if fp16 else precision.FLOAT32,
        skip_model_load=True,
    )
