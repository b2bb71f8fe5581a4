"""What the files of a job are made of; what several formats need is made once."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.export import ExportedProgram

from nanodet_d2.modeling import NanoDetPlus
from nanodet_d2.runtime.metadata import ExportMetadata, input_form
from nanodet_d2.runtime.preprocess import prepare as prepare_image

from .calibration import Samples, hash_names
from .end2end import add_image_and_nms
from .formats import find_format
from .formats.base import OUTPUTS
from .formats.onnx import DATA, network_to_onnx
from .int8 import Explanation, Plan, Prepared, Scheme, calibrate
from .int8.qdq import quantize_onnx
from .job import Job
from .network import export_network


class Products:
    """A model, and what formats are written from.

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
        self.isolated = job.isolated
        self._calibration = calibration
        self._onnx_networks: dict[str, Any] = {}
        self._programs: dict[str, ExportedProgram] = {}
        self._prepared: Prepared | None = None
        self._quantized: dict[Scheme, tuple[Products, Plan]] = {}

    def write(self, format: str, path: Path, *, int8: bool | None = None) -> None:
        """Write the job's file of one format, and the json beside it.

        Args:
            int8: in place of the job's.
        """
        writer, metadata = find_format(format), self.describe(format)
        int8 = self.job.int8 if int8 is None else int8
        writer.write(self, path, metadata, fp16=self.job.fp16, int8=int8)
        beside = writer.backend.metadata_path(path)
        beside.write_text(metadata.to_json() + "\n", encoding="utf-8")

    def describe(self, format: str) -> ExportMetadata:
        """Metadata of the job's file of one format."""
        kind, pictures = self.job.kind, self._calibration if self.job.int8 else ()
        name = "image" if kind == "end2end" else DATA
        axes, dtype = input_form(kind)
        described = dataclasses.replace(
            self.metadata.input, name=name, dynamic=self.job.dynamic, axes=axes, dtype=dtype
        )
        file = dataclasses.replace(
            self.metadata,
            kind=kind,
            input=described,
            precision=self.job.precision,
            calibration_images=len(pictures),
            calibration_sha256=hash_names(pictures) if pictures else "",
        )
        writer = find_format(format)
        return writer.describe(file.with_outputs(writer.outputs(kind, self.metadata.strides)))

    def network(self, kind: str) -> nn.Module:
        """The network "raw", "split" or "decoded"."""
        return export_network(self.model, kind)

    def program(self, metadata: ExportMetadata) -> ExportedProgram:
        """The network of a kind, raw or decoded, with its operators and shapes."""
        kind, x = metadata.kind, metadata.input
        if kind not in self._programs:
            example = torch.zeros(1, 3, x.height, x.width)
            self._programs[kind] = torch.export.export(self.network(kind), (example,))
        return self._programs[kind]

    def onnx(self, metadata: ExportMetadata, *, int8: Scheme | None = None) -> Any:
        """An ``onnx.ModelProto`` of a kind, to do with as one likes.

        Args:
            int8: of the engine that it is for, to quantise it.
        """
        end2end = metadata.kind == "end2end"
        kind = "decoded" if end2end else metadata.kind
        if int8 is None:
            model = self._float_onnx(kind, metadata)
        else:
            products, plan = self.quantized(int8)
            model = products._float_onnx(kind, metadata)
            quantize_onnx(model, plan)
        return add_image_and_nms(model, metadata) if end2end else model

    def _float_onnx(self, kind: str, metadata: ExportMetadata) -> Any:
        if kind not in self._onnx_networks:
            network = network_to_onnx(self.network(kind), metadata, OUTPUTS[kind])
            self._onnx_networks[kind] = network
        return copy.deepcopy(self._onnx_networks[kind])

    def explanation(self, scheme: Scheme) -> Explanation:
        """What quantising each convolution costs with an engine."""
        return self._calibrated().explanation(scheme)

    def quantized(self, scheme: Scheme) -> tuple[Products, Plan]:
        """The same of the network that was prepared for INT8, and what is to be done with it."""
        if scheme not in self._quantized:
            prepared = self._calibrated()
            plan = prepared.plan(scheme)
            model = copy.deepcopy(self.model).fuse()
            unknown = model.load_state_dict(prepared.state(plan), strict=False).unexpected_keys
            assert not unknown, unknown
            self._quantized[scheme] = Products(model, self.metadata, self.job), plan
        return self._quantized[scheme]

    def _calibrated(self) -> Prepared:
        if self._prepared is None:
            classes = len(self.metadata.class_names)
            program = self.program(self.metadata)
            self._prepared = calibrate(program, self.samples(), classes=classes)
        return self._prepared

    def samples(self) -> Samples:
        """The calibration pictures as inputs of the raw network."""
        x = self.metadata.input

        def prepare(image: np.ndarray) -> np.ndarray:
            return prepare_image(image, x)[None]

        return Samples(self._calibration, prepare)
