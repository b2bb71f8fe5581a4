"""ONNX with QuantizeLinear and DequantizeLinear around convolutions: what ONNX Runtime, OpenVINO
and others turn into convolutions of integers.

Not by onnxruntime.quantization: that lets all who read a tensor read the quantised one, so that
features which go into a sum or a concatenation as well lose more than the convolution needs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .prepare import Plan
from .scheme import MOST, SMALLEST, Range

LARGEST_BIAS = 2**30  # of an int32


def quantize_onnx(model: Any, plan: Plan) -> None:
    """Change an ``onnx.ModelProto`` in place.

    Args:
        model: whose convolutions' weights are called ``<name in the plan>.weight``.
    """
    _Writer(model, plan).write()


class _Writer:
    def __init__(self, model: Any, plan: Plan):
        self.graph, self.plan = model.graph, plan
        self.initializers = {x.name: x for x in model.graph.initializer}
        self.nodes: list[Any] = []
        self.stored: dict[str, str] = {}  # tensors that are stored in eight bits, and as which ones

    def write(self) -> None:
        for node in list(self.graph.node):
            name = node.input[1].removesuffix(".weight") if node.op_type == "Conv" else ""
            if name in self.plan.inputs:
                self._convolution(node, name)
            else:
                self.nodes.append(node)
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        used = {name for node in self.nodes for name in node.input}
        for name, x in self.initializers.items():
            if name not in used:
                self.graph.initializer.remove(x)

    def _convolution(self, node: Any, name: str) -> None:
        # Where the output is one of integers, the bias is added as one, too.
        integers = self.plan.scheme.outputs and len(node.input) > 2
        bias = self._values(node.input[2]) if integers else None
        step, _ = self._grid(self.plan.inputs[name])
        scales = self._weights(node, name, bias, step)
        if bias is not None:
            self._bias(node, name, bias, (step * scales).astype(np.float32))
        node.input[0] = self._tensor(node.input[0], self.plan.inputs[name])
        if not self.plan.scheme.outputs:
            self.nodes.append(node)
            return
        (output,) = node.output
        node.output[0] = f"{output}/float"
        self.nodes.append(node)
        self._pair(node.output[0], output, self.plan.outputs[name])
        self.stored[output] = output

    def _tensor(self, name: str, range: Range) -> str:
        """Store a tensor for who asks, once."""
        if name not in self.stored:
            self.stored[name] = f"{name}/int8"
            self._pair(name, self.stored[name], range)
        return self.stored[name]

    def _pair(self, source: str, target: str, range: Range) -> None:
        scale, zero = self._grid(range)
        kind = np.int8 if self.plan.scheme.symmetric else np.uint8
        grid = [self._constant(f"{target}/scale", np.float32(scale)),
                self._constant(f"{target}/zero", kind(zero))]  # fmt: skip
        self._node("QuantizeLinear", [source, *grid], f"{target}/stored")
        self._node("DequantizeLinear", [f"{target}/stored", *grid], target)

    def _weights(self, node: Any, name: str, bias: Any, step: float) -> np.ndarray:
        """Store a convolution's weights; the scale of each output channel."""
        weight = self._values(node.input[1])
        scales = np.abs(weight).reshape(len(weight), -1).max(axis=1) / MOST
        if bias is not None:  # of a channel that is next to nothing but its bias
            scales = np.maximum(scales, np.abs(bias) / (LARGEST_BIAS * step))
        scales = np.maximum(scales, SMALLEST).astype(np.float32)
        whole = np.clip(np.round(weight / scales.reshape(-1, 1, 1, 1)), -MOST, MOST)
        node.input[1] = self._channels(f"{name}.weight/int8", whole.astype(np.int8), scales)
        return scales

    def _bias(self, node: Any, name: str, bias: np.ndarray, scales: np.ndarray) -> None:
        whole = np.round(bias / scales).astype(np.int32)
        node.input[2] = self._channels(f"{name}.bias/int32", whole, scales)

    def _channels(self, target: str, whole: np.ndarray, scales: np.ndarray) -> str:
        """A constant tensor with a scale for each channel."""
        inputs = [
            self._constant(f"{target}/stored", whole),
            self._constant(f"{target}/scale", scales),
            self._constant(f"{target}/zero", np.zeros(len(scales), whole.dtype)),
        ]
        self._node("DequantizeLinear", inputs, target, axis=0)
        return target

    def _grid(self, range: Range) -> tuple[float, int]:
        return range.grid(symmetric=self.plan.scheme.symmetric)

    def _values(self, name: str) -> np.ndarray:
        from onnx import numpy_helper

        return numpy_helper.to_array(self.initializers[name])

    def _constant(self, name: str, value: Any) -> str:
        from onnx import numpy_helper

        self.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _node(self, kind: str, inputs: list[str], output: str, **options: Any) -> None:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, [output], f"{output}/{kind}", **options))
