"""A program: from a ``torch.export`` file to a LiteRT file.

It is run by its path, in an environment that has litert_torch, and imports nothing of this package.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def convert(program: str, target: str, *, fp16: bool) -> None:
    """Write a LiteRT file with an input ``data`` (N, H, W, 3) and an output ``output``.

    Args:
        program: path of a network for normalised images (N, 3, H, W).
        target: path to write.
        fp16: store weights in half precision.
    """
    import litert_torch
    import torch

    exported = torch.export.load(program)
    (images,), _ = exported.example_inputs

    class ChannelsLast(torch.nn.Module):
        """Takes images as programs on phones have them, and names its output."""

        def __init__(self) -> None:
            super().__init__()
            self.network = exported.module()

        def forward(self, data: Any) -> dict[str, Any]:
            return {"output": self.network(data.permute(0, 3, 1, 2))}

    example = images.permute(0, 2, 3, 1).contiguous()
    litert_torch.convert(ChannelsLast(), sample_kwargs={"data": example}).export(target)
    if fp16:
        _halve(target)


def _halve(path: str) -> None:
    from ai_edge_quantizer import algorithm_manager, qtyping, quantizer

    halves = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
    writer = quantizer.Quantizer(path)
    writer.update_quantization_recipe(
        regex=".*",
        operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
        op_config=qtyping.OpQuantizationConfig(
            weight_tensor_config=halves, compute_precision=qtyping.ComputePrecision.FLOAT
        ),
        algorithm_key=algorithm_manager.AlgorithmName.FLOAT_CASTING,
    )
    writer.quantize().export_model(path, overwrite=True)


if __name__ == "__main__":
    request = json.loads(sys.argv[1])
    sys.path += request["path"]  # torch is there, and comes after the environment's own packages
    convert(request["program"], request["target"], fp16=request["fp16"])
