"""OpenVINO files, made from ONNX ones."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from nanodet_d2.runtime.backends.openvino import OpenVino
from nanodet_d2.runtime.metadata import METADATA_KEY, ExportMetadata

from ..int8 import Scheme
from .base import Format, Material
from .onnx import Onnx


class OpenVinoFormat(Format):
    backend = OpenVino
    packages = (*Onnx.packages, "openvino")
    # What follows a convolution of integers, as its activation, is computed in float on the way.
    # Depthwise ones take no less time in eight bits, and cost nearly half of what all do.
    scheme = Scheme(symmetric=False, outputs=False, depthwise=False)
    options = ("kind decoded", "kind end2end", "dynamic", "fp16", "int8")

    def write(
        self, products: Material, path: Path, metadata: ExportMetadata, *, fp16: bool, int8: bool
    ) -> None:
        model = products.onnx(metadata, int8=self.scheme if int8 else None)
        save_openvino(onnx_to_openvino(model), path, metadata, fp16=fp16)


def onnx_to_openvino(model: Any) -> Any:
    """The ``openvino.Model`` of an ``onnx.ModelProto``."""
    import onnx
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, str(path))
        return openvino.convert_model(str(path))


def save_openvino(model: Any, path: Path, metadata: ExportMetadata, *, fp16: bool) -> None:
    """Write an ``openvino.Model`` with its metadata inside.

    Args:
        fp16: store weights in half precision.
    """
    import openvino

    model.set_rt_info(metadata.to_json(), [METADATA_KEY])
    openvino.save_model(model, str(path), compress_to_fp16=fp16)
