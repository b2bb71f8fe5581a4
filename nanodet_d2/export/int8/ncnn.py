"""ncnn files in INT8, made of pnnx's float ones. (ncnn's own tools, ncnn2table and ncnn2int8, are
programs that no package carries; and ncnn2table would choose ranges of its own.)

A ``.param`` file has a line for each layer: type, name, numbers of inputs and of outputs, their
blobs, ``key=value`` pairs. The ``.bin`` file has the weights of all layers, in that order. What is
read and written here is what ``Convolution::load_model`` and ``ConvolutionDepthWise::load_model``
of ncnn take:

- float: 4 bytes of zero, float32 weights, float32 biases if 5=1;
- float16: a tag of 4 bytes, the weights, up to a multiple of 4 bytes, the float32 biases;
- INT8 (8=1): another tag, the weights, up to a multiple of 4 bytes, the biases; then as float32 the
  numbers that values are multiplied with to be stored: of each output channel's weights, and of the
  input. With 8=101 one more, for the output, which is then handed on in eight bits.
"""

from __future__ import annotations

import dataclasses
import struct
from collections import defaultdict
from collections.abc import Mapping
from typing import Optional

import numpy as np

from .prepare import Plan
from .scheme import MOST, SMALLEST

FLOAT, FLOAT16, INT8 = (struct.pack("<I", x) for x in (0, 0x01306B47, 0x000D4B38))
HANDED_ON = 100  # added to 8=1
KINDS = ("Convolution", "ConvolutionDepthWise")

# Of a convolution: weights (O, I, height, width) and biases (O,), if any.
Weights = tuple[np.ndarray, Optional[np.ndarray]]


@dataclasses.dataclass
class _Layer:
    """A line of a param file, in words."""

    words: list[str]

    @property
    def inputs(self) -> list[str]:
        return self.words[4 : 4 + int(self.words[2])]

    @property
    def output(self) -> str:
        """The first one; a convolution has no other."""
        return self.words[4 + int(self.words[2])]

    def number(self, key: int) -> int:
        """A value of a convolution's; 0 if it is not told."""
        return next((int(x.split("=")[1]) for x in self.words if x.startswith(f"{key}=")), 0)


def quantize_ncnn(
    param: str, data: bytes, weights: Mapping[str, Weights], plan: Plan, *, fp16: bool
) -> tuple[str, bytes]:
    """A param file and a bin file in INT8.

    Args:
        param, data: those of the float32 network.
        weights: of its convolutions by name, by which their layers are recognised.
        fp16: store the weights of those that stay in float in half precision.

    Raises:
        ValueError: if a layer has other weights than the network.
    """
    magic, counts, *lines = param.splitlines()
    layers = [_Layer(line.split()) for line in lines]
    blobs = {name: _float(x) for name, x in weights.items()}
    places = _places(layers, data, blobs)
    readers = _readers(layers)
    parts, position = [], 0
    for number, (name, place) in places.items():
        parts.append(data[position:place])
        position = place + len(blobs[name])
        if name not in plan.inputs:
            parts.append(_half(weights[name]) if fp16 else blobs[name])
            continue
        peaks = [plan.inputs[name].peak]
        following = readers[layers[number].output]
        if len(following) == 1 and following[0] in places:
            reader, _ = places[following[0]]
            if reader in plan.inputs:
                peaks.append(plan.inputs[reader].peak)
        parts.append(_int8(weights[name], peaks))
        layers[number].words.append(f"8={1 if len(peaks) == 1 else 1 + HANDED_ON}")
    parts.append(data[position:])
    text = "\n".join([magic, counts, *(" ".join(x.words) for x in layers)]) + "\n"
    return text, b"".join(parts)


def _places(
    layers: list[_Layer], data: bytes, blobs: Mapping[str, bytes]
) -> dict[int, tuple[str, int]]:
    """Of each convolution's layer, by number: its name in the network, and where it is in the
    data.

    Raises:
        ValueError: for a layer whose weights are none of the network's.
    """
    found: dict[int, tuple[str, int]] = {}
    position = 0
    for number, layer in enumerate(layers):
        if layer.words[0] not in KINDS:
            continue
        size = 4 * (1 + layer.number(6) + layer.number(5) * layer.number(0))
        able = {name: data.find(x, position) for name, x in blobs.items() if len(x) == size}
        able = {name: place for name, place in able.items() if place >= 0}
        if not able:
            raise ValueError(
                f"ncnn: INT8 needs the network's own weights, and pnnx changed those of its layer "
                f"{layer.words[1]}"
            )
        name = min(able, key=able.__getitem__)
        found[number] = name, able[name]
        position = able[name] + size
    return found


def _readers(layers: list[_Layer]) -> dict[str, list[int]]:
    """Numbers of the layers that take each blob."""
    found: dict[str, list[int]] = defaultdict(list)
    for number, layer in enumerate(layers):
        for blob in layer.inputs:
            found[blob].append(number)
    return found


def _float(x: Weights) -> bytes:
    return FLOAT + _bytes(x[0], "<f4") + _bytes(x[1], "<f4")


def _half(x: Weights) -> bytes:
    return FLOAT16 + _padded(_bytes(x[0], "<f2")) + _bytes(x[1], "<f4")


def _int8(x: Weights, peaks: list[float]) -> bytes:
    """
    Args:
        peaks: of the input and, where it is handed on in eight bits, of the output.
    """
    weight, bias = x
    largest = np.abs(weight).reshape(len(weight), -1).max(axis=1)
    factors = MOST / np.maximum(largest, SMALLEST)
    whole = np.clip(np.round(weight * factors.reshape(-1, 1, 1, 1)), -MOST, MOST)
    scales = [MOST / max(x, SMALLEST) for x in peaks]
    return b"".join(
        (
            INT8,
            _padded(_bytes(whole, "i1")),
            _bytes(bias, "<f4"),
            _bytes(factors, "<f4"),
            _bytes(np.array(scales), "<f4"),
        )
    )


def _bytes(values: np.ndarray | None, kind: str) -> bytes:
    return b"" if values is None else np.ascontiguousarray(values).astype(kind).tobytes()


def _padded(data: bytes) -> bytes:
    """Up to a multiple of 4 bytes."""
    return data + bytes(-len(data) % 4)
