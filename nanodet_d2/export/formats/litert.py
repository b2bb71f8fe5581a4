"""LiteRT files (formerly TensorFlow Lite), by litert-torch."""

from __future__ import annotations

import dataclasses
import tempfile
import zipfile
from pathlib import Path

import torch

from nanodet_d2.runtime.backends.litert import METADATA_FILE, LiteRt
from nanodet_d2.runtime.metadata import CHANNELS_LAST, ExportMetadata

from ..isolated import Environment, litert, run_in
from .base import Format, Material

# litert-torch 0.10.0 asks for torch below 2.15; with 2.15.0 its files compute what PyTorch does,
# which each export verifies. So it gets that torch here. Left out is what it needs for language
# models: transformers, kagglehub, sentencepiece, litert-lm-builder.
ENVIRONMENT = Environment(
    name="litert",
    python=(3, 11),
    gigabytes=1.1,
    requirements=(
        "absl-py==2.5.1",
        "ai-edge-litert==2.3.0",
        "ai-edge-quantizer==0.10.0",
        "backports.strenum==1.2.8",
        "flatbuffers==25.12.19",
        "immutabledict==4.2.1",
        "jax==0.10.2",
        "jaxlib==0.10.2",
        "jaxtyping==0.3.11",
        "lark==1.3.1",
        "litert-converter==0.5.0",
        "litert-torch==0.10.0",
        "markdown-it-py==4.3.0",
        "mdurl==0.1.2",
        "ml_dtypes==0.6.0",
        "multipledispatch==1.0.0",
        "numpy==2.4.6",
        "opt_einsum==3.4.0",
        "ordered-set==4.1.0",
        "protobuf==7.36.2",
        "Pygments==2.20.0",
        "rich==15.0.0",
        "safetensors==0.8.0",
        "scipy==1.17.1",
        "tabulate==0.10.0",
        "torchao==0.18.0",
        "tqdm==4.70.1",
        "typing_extensions==4.16.0",
        "wadler_lindig==0.1.8",
        "xdsl==0.28.0",
    ),
)


class LiteRtFormat(Format):
    """Its input ``data`` is (1, H, W, 3), as programs on phones have images."""

    backend = LiteRt
    packages = ("litert_torch",)
    environment = ENVIRONMENT
    options = ("fp16",)

    def describe(self, metadata: ExportMetadata) -> ExportMetadata:
        turned = dataclasses.replace(metadata.input, axes=CHANNELS_LAST)
        return dataclasses.replace(metadata, input=turned)

    def write(
        self, products: Material, path: Path, metadata: ExportMetadata, *, fp16: bool, int8: bool
    ) -> None:
        with tempfile.TemporaryDirectory() as folder:
            program, target = Path(folder) / "model.pt2", Path(folder) / "model.tflite"
            torch.export.save(products.program(metadata), program)
            request = dict(program=str(program), target=str(target), fp16=fp16)
            environment = ENVIRONMENT if products.isolated else None
            run_in(environment, Path(litert.__file__), request)
            path.write_bytes(target.read_bytes())
        # Behind the model, as TensorFlow Lite's own metadata have associated files.
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(METADATA_FILE, metadata.to_json())
