"""ONNX files."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path

import torch
from torch import nn

from .metadata import METADATA_KEY, ExportMetadata

PACKAGES = ("onnx", "onnxscript", "onnxslim", "onnxruntime")
OPSET = 18  # the lowest that torch's exporter writes by itself
EXAMPLE_BATCH = 2  # of a dynamic export: torch takes a size of 1 for a constant


def export_onnx(network: nn.Module, path: Path, metadata: ExportMetadata) -> None:
    """Write a network of kind "raw" or "decoded" with its metadata.

    Args:
        network: of ``network()``, in evaluation mode.
        metadata: of the file; ``input.dynamic`` makes batch, height and width free.
    """
    import onnxslim

    x = metadata.input
    shapes = None
    if x.dynamic:
        stride = backbone_stride(network)
        height, width = (torch.export.Dim(name, min=1, max=256) for name in ("rows", "columns"))
        batch = torch.export.Dim("batch", min=1, max=1024)
        shapes = {"data": {0: batch, 2: stride * height, 3: stride * width}}
    example = torch.zeros(EXAMPLE_BATCH if x.dynamic else 1, 3, x.height, x.width)
    with _quiet():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[x.name],
            output_names=list(metadata.outputs),
            dynamic_shapes=shapes,
            verbose=False,
        )
        model = onnxslim.slim(program.model_proto)
    save_onnx(model, path, metadata)


def save_onnx(model, path: Path, metadata: ExportMetadata) -> None:
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


def backbone_stride(network: nn.Module) -> int:
    """What height and width are multiples of."""
    return max(shape.stride for shape in network.backbone.output_shape().values())


@contextlib.contextmanager
def _quiet():
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
