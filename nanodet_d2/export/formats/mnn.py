"""MNN files, made from ONNX ones."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from nanodet_d2.runtime.backends.mnn import Mnn
from nanodet_d2.runtime.metadata import ExportMetadata

from .base import Format, Material
from .onnx import Onnx

# The converter as a function. Not the program `mnnconvert`, nor any other part of MNN.tools: when
# imported, that package installs a client by pip and sends what is converted to a server.
CONVERT = "import sys, _tools; _tools.mnnconvert(sys.argv)"


class MnnFormat(Format):
    backend = Mnn
    packages = (*Onnx.packages, "MNN")
    options = ("kind decoded", "dynamic", "fp16")

    def write(
        self, products: Material, path: Path, metadata: ExportMetadata, *, fp16: bool, int8: bool
    ) -> None:
        onnx_to_mnn(products.onnx(metadata), path, metadata, fp16=fp16)


def onnx_to_mnn(model: Any, path: Path, metadata: ExportMetadata, *, fp16: bool) -> None:
    """Write an ``onnx.ModelProto`` for MNN, with its metadata inside.

    Args:
        fp16: store weights in half precision.

    Raises:
        ValueError: if MNN cannot convert the network; the message ends as its output did.
    """
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "model.onnx", Path(folder) / "model.mnn"
        onnx.save(model, str(source))
        command = [sys.executable, "-c", CONVERT, "-f", "ONNX"]
        command += ["--modelFile", str(source), "--MNNModel", str(target)]
        command += [f"--bizCode={metadata.to_json()}", *["--fp16"] * fp16]
        # In that folder, as Python looks for modules in the one where it starts.
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if not target.is_file():  # it ends with 0, whatever happened
            raise ValueError(f"MNN's converter failed: {(done.stdout + done.stderr)[-1500:]}")
        shutil.copyfile(target, path)
