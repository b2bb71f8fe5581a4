"""TorchScript files."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import nn

from nanodet_d2.runtime.backends.torchscript import TorchScript
from nanodet_d2.runtime.metadata import METADATA_KEY, ExportMetadata

from .base import Format, Material


class TorchScriptFormat(Format):
    backend = TorchScript
    options = ("kind decoded", "dynamic")

    def write(
        self, products: Material, path: Path, metadata: ExportMetadata, *, fp16: bool, int8: bool
    ) -> None:
        export_torchscript(products.network(metadata.kind), path, metadata)


def export_torchscript(network: nn.Module, path: Path, metadata: ExportMetadata) -> None:
    """Trace a network of kind "raw" or "decoded" and write it with its metadata inside."""
    x = metadata.input
    with warnings.catch_warnings():
        # Checks of shapes are not traced, and tracing is said to be out of date.
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(network, torch.zeros(1, 3, x.height, x.width))
        if not x.dynamic:
            traced = torch.jit.freeze(traced)
        torch.jit.save(traced, str(path), _extra_files={METADATA_KEY: metadata.to_json()})
