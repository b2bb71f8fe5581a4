"""ONNX files."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nanodet_d2.runtime.backends.onnx import OnnxRuntime
from nanodet_d2.runtime.metadata import METADATA_KEY, ExportMetadata

from ..int8 import Scheme
from .base import Format, Material

OPSET = 18  # the lowest that torch's exporter writes by itself
DATA = "data"  # the network's input
EXAMPLE_BATCH = 2  # of a dynamic export: torch takes a size of 1 for a constant


class Onnx(Format):
    backend = OnnxRuntime
    packages = ("onnx", "onnxscript", "onnxslim", "onnxruntime")
    # Its convolution of integers gives integers: one with a float output would be one of floats.
    scheme = Scheme(symmetric=False, outputs=True, depthwise=True)
    options = ("kind decoded", "kind end2end", "dynamic", "int8")
    has_float64 = True

    def write(
        self, products: Material, path: Path, metadata: ExportMetadata, *, fp16: bool, int8: bool
    ) -> None:
        model = products.onnx(metadata, int8=self.scheme if int8 else None)
        save_onnx(model, path, metadata)


def network_to_onnx(network: nn.Module, metadata: ExportMetadata, outputs: Sequence[str]) -> Any:
    """The simplified ``onnx.ModelProto`` of a network for normalised images.

    Args:
        network: "raw" or "decoded" of ``export_network()``, in evaluation mode.
        metadata: ``input.dynamic`` makes batch, height and width free.
        outputs: names.
    """
    import onnxslim

    x = metadata.input
    shapes = None
    if x.dynamic:
        divisor = network.size_divisibility
        batch, rows, columns = (torch.export.Dim(n, max=1024) for n in ("batch", "rows", "columns"))
        shapes = {"data": {0: batch, 2: divisor * rows, 3: divisor * columns}}
    example = torch.zeros(EXAMPLE_BATCH if x.dynamic else 1, 3, x.height, x.width)
    with _quiet():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[DATA],
            output_names=list(outputs),
            dynamic_shapes=shapes,
            verbose=False,
        )
        assert program is not None  # None is for dynamo=False
        return onnxslim.slim(program.model_proto)


def save_onnx(model: Any, path: Path, metadata: ExportMetadata) -> None:
    """Check an ``onnx.ModelProto`` and write it with its metadata inside."""
    import onnx

    for node in model.graph.node:  # where it came from in PyTorch: half of the file
        del node.metadata_props[:]
        node.doc_string = ""
    for value in [*model.graph.input, *model.graph.output, *model.graph.value_info]:
        del value.metadata_props[:]
    del model.metadata_props[:]
    model.producer_name = "nanodet_d2"
    onnx.helper.set_model_props(model, {METADATA_KEY: metadata.to_json()})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's progress and its advice to those who maintain it."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(max(level, logging.ERROR))
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
