"""ncnn files, by pnnx."""

from __future__ import annotations

import subprocess
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from nanodet_d2.runtime.backends.ncnn import Ncnn
from nanodet_d2.runtime.metadata import ExportMetadata

from ..int8 import Scheme
from ..int8.ncnn import Weights, quantize_ncnn
from .base import Format, Material

SCHEME = Scheme(symmetric=True, outputs=False, depthwise=False)


class NcnnFormat(Format):
    backend = Ncnn
    packages = ("pnnx", "ncnn")
    scheme = SCHEME
    options = ("fp16", "int8")

    def outputs(self, kind: str, strides: Sequence[int]) -> tuple[str, ...]:
        return blob_names(strides)

    def write(
        self, products: Material, path: Path, metadata: ExportMetadata, *, fp16: bool, int8: bool
    ) -> None:
        x = metadata.input
        size = x.height, x.width
        if int8:
            products, plan = products.quantized(SCHEME)
            network = products.network("split")
            param, data = convert(network, size, fp16=False)
            param, data = quantize_ncnn(param, data, _weights(network), plan, fp16=fp16)
        else:
            param, data = convert(products.network("split"), size, fp16=fp16)
        path.write_text(rename_blobs(param, [x.name], metadata.outputs))
        Path(str(path).removesuffix(".param") + ".bin").write_bytes(data)


def convert(network: nn.Module, size: tuple[int, int], *, fp16: bool) -> tuple[str, bytes]:
    """The param and the bin file that pnnx makes of a network.

    Args:
        network: "split" of ``export_network()``, in evaluation mode.
        size: (height, width) of its input.
        fp16: store weights in half precision.

    Raises:
        ValueError: if pnnx cannot convert the network; the message ends as pnnx's output did.
    """
    import pnnx

    height, width = size
    with tempfile.TemporaryDirectory() as folder:
        traced_path = Path(folder) / "model.pt"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(network, torch.zeros(1, 3, height, width))
            torch.jit.save(traced, str(traced_path))
        command = [
            pnnx.EXEC_PATH,
            str(traced_path),
            f"inputshape=[1,3,{height},{width}]",
            f"fp16={int(fp16)}",
        ]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        param, weights = Path(folder) / "model.ncnn.param", Path(folder) / "model.ncnn.bin"
        if done.returncode or not param.is_file():
            raise ValueError(f"pnnx failed: {(done.stdout + done.stderr)[-1500:]}")
        return param.read_text(), weights.read_bytes()


def _weights(network: nn.Module) -> dict[str, Weights]:
    """Of the convolutions of a network, by name."""
    return {
        name: (x.weight.detach().numpy(), None if x.bias is None else x.bias.detach().numpy())
        for name, x in network.named_modules()
        if isinstance(x, nn.Conv2d)
    }


def blob_names(strides: Sequence[int]) -> tuple[str, ...]:
    """Output blobs: ``cls8 … cls64 dis8 … dis64`` for strides of 8 to 64.

    Raises:
        ValueError: if two levels have one stride, and thus one name.
    """
    if len(set(strides)) < len(strides):
        raise ValueError(f"ncnn: the levels have strides {list(strides)}; allowed: each once")
    return tuple(f"{x}{stride}" for x in ("cls", "dis") for stride in strides)


def rename_blobs(param: str, inputs: Sequence[str], outputs: Sequence[str]) -> str:
    """A param file with other names for pnnx's blobs in0, in1, … and out0, out1, …

    A line of it is: type, name, numbers of inputs and of outputs, their blobs, key=value pairs.
    """
    names = {f"in{i}": name for i, name in enumerate(inputs)}
    names.update({f"out{i}": name for i, name in enumerate(outputs)})
    magic, counts, *layers = param.splitlines()
    renamed = []
    for layer in layers:
        kind, name, num_in, num_out, *rest = layer.split()
        blobs = int(num_in) + int(num_out)
        rest[:blobs] = [names.get(blob, blob) for blob in rest[:blobs]]
        renamed.append(" ".join([f"{kind:<24}", f"{name:<24}", num_in, num_out, *rest]))
    return "\n".join([magic, counts, *renamed]) + "\n"
