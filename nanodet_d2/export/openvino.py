"""OpenVINO files, made from ONNX ones."""

from __future__ import annotations

from pathlib import Path

from .metadata import METADATA_KEY, ExportMetadata

PACKAGES = ("openvino",)


def export_openvino(onnx_path: Path, path: Path, metadata: ExportMetadata, *, fp16: bool) -> None:
    """Convert an ONNX file; with ``fp16`` weights are stored in half precision."""
    import openvino

    save_openvino(openvino.convert_model(str(onnx_path)), path, metadata, fp16=fp16)


def save_openvino(model, path: Path, metadata: ExportMetadata, *, fp16: bool) -> None:
    """Write an ``openvino.Model`` with its metadata inside."""
    import openvino

    model.set_rt_info(metadata.to_json(), [METADATA_KEY])
    openvino.save_model(model, str(path), compress_to_fp16=fp16)
