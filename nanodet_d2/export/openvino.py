"""OpenVINO files, made from ONNX ones."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from .metadata import METADATA_KEY, ExportMetadata

PACKAGES = ("openvino",)


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
