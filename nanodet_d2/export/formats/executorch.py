"""ExecuTorch files for processors: XNNPACK computes all but the splits of the channel shuffles."""

from __future__ import annotations

from pathlib import Path

from nanodet_d2.runtime.backends.executorch import ExecuTorch
from nanodet_d2.runtime.backends.quiet import STDERR, STDOUT, silence
from nanodet_d2.runtime.metadata import METADATA_KEY, ExportMetadata

from .base import Format, Material


class ExecuTorchFormat(Format):
    backend = ExecuTorch
    packages = ("executorch",)
    options = ("kind decoded",)

    def write(
        self, products: Material, path: Path, metadata: ExportMetadata, *, fp16: bool, int8: bool
    ) -> None:
        program = products.program(metadata)
        with silence(STDOUT, STDERR):  # advice to those who maintain it
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import (
                XnnpackPartitioner,
            )
            from executorch.exir import to_edge_transform_and_lower

            lowered = to_edge_transform_and_lower(
                program,
                partitioner=[XnnpackPartitioner()],
                constant_methods={METADATA_KEY: metadata.to_json()},
            ).to_executorch()
        path.write_bytes(lowered.buffer)
