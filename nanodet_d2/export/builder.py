"""From a model to the files of one job."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nanodet_d2.modeling import NanoDetPlus
from nanodet_d2.predictor import load_image, normalize, stretch

from . import ncnn, onnx, openvino, torchscript
from .end2end import add_image_and_nms
from .metadata import ExportMetadata, metadata_path
from .network import END2END_OUTPUTS, OUTPUTS, network
from .quantize import quantize_onnx, quantize_openvino

WRITER_PACKAGES = {
    "onnx": onnx.PACKAGES,
    "openvino": (*onnx.PACKAGES, *openvino.PACKAGES),  # made from an ONNX graph
    "ncnn": ncnn.PACKAGES,
    "torchscript": torchscript.PACKAGES,
}


@dataclasses.dataclass(frozen=True)
class Job:
    """What to export; see the command's help."""

    config_file: str
    checkpoint: str
    formats: tuple[str, ...]
    output: Path
    kind: str = "raw"
    input_size: tuple[int, int] | None = None
    dynamic: bool = False
    fp16: bool = False
    int8: bool = False
    calibration: Path | None = None
    eval_json: Path | None = None
    eval_images: Path | None = None
    verify: bool = True
    images: tuple[Path, ...] = ()
    overrides: tuple[str, ...] = ()

    @property
    def variant(self) -> str:
        return "int8" if self.int8 else "fp16" if self.fp16 else ""


class Builder:
    """Writes a model's files; what several formats are made from is made once.

    Args:
        model: in evaluation mode.
        metadata: of the model.
        job: what is wanted.
        calibration: pictures for INT8.
    """

    def __init__(
        self,
        model: NanoDetPlus,
        metadata: ExportMetadata,
        job: Job,
        calibration: Sequence[Path] = (),
    ):
        self.model, self.metadata, self.job = model, metadata, job
        self._calibration = calibration
        self._onnx_network: Any = None

    def write(self, format: str, path: Path, *, int8: bool | None = None) -> None:
        """Write the job's file of one format, and the json beside it.

        Args:
            int8: in place of the job's.
        """
        int8 = self.job.int8 if int8 is None else int8
        metadata = self.describe(format)
        if format == "ncnn":
            ncnn.export_ncnn(network(self.model, "split"), path, metadata, fp16=self.job.fp16)
        elif format == "torchscript":
            torchscript.export_torchscript(network(self.model, metadata.kind), path, metadata)
        elif format == "onnx":
            onnx.save_onnx(self._onnx(metadata, int8=int8), path, metadata)
        else:
            model = openvino.onnx_to_openvino(self._onnx(metadata, int8=False))
            if int8:
                model = quantize_openvino(model, self._samples(metadata))
            openvino.save_openvino(model, path, metadata, fp16=self.job.fp16)
        metadata_path(path).write_text(metadata.to_json() + "\n", encoding="utf-8")

    def describe(self, format: str) -> ExportMetadata:
        """Metadata of the job's file of one format."""
        kind = self.job.kind
        outputs = OUTPUTS.get(kind, END2END_OUTPUTS)
        if format == "ncnn":
            outputs = ncnn.blob_names(self.metadata.strides)
        name = "image" if kind == "end2end" else onnx.DATA
        described = dataclasses.replace(self.metadata.input, name=name, dynamic=self.job.dynamic)
        return dataclasses.replace(self.metadata, kind=kind, outputs=outputs, input=described)

    def _onnx(self, metadata: ExportMetadata, *, int8: bool) -> Any:
        """The ``onnx.ModelProto`` of the job's kind."""
        end2end = metadata.kind == "end2end"
        kind = "decoded" if end2end else metadata.kind
        if self._onnx_network is None:
            net = network(self.model, kind)
            self._onnx_network = onnx.network_to_onnx(net, metadata, OUTPUTS[kind])
        model = self._onnx_network
        if int8:
            samples = self._samples(dataclasses.replace(metadata, kind=kind))
            model = quantize_onnx(model, samples, onnx.DATA)
        return add_image_and_nms(model, metadata) if end2end else model

    def _samples(self, metadata: ExportMetadata) -> list[np.ndarray]:
        """The calibration pictures as inputs of a file."""
        x = metadata.input
        images = (load_image(path) for path in self._calibration)
        if metadata.kind == "end2end":
            return list(images)
        return [normalize(stretch(image, x.height, x.width), x)[None] for image in images]
