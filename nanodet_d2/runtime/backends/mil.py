"""Computes a Core ML program with torch: what a saved file says, operation by operation.

The operations are those of coremltools' MIL (apple.github.io/coremltools, "MIL Ops") that
convolutional networks need. Everything is computed in float32, also what the file has in float16.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .torchscript import torch_threads


class Program:
    """A saved program, to be called with its input.

    Args:
        model: a ``coremltools.models.MLModel`` that was loaded from a file.
        source: named in errors.

    Raises:
        ValueError: for operations that are not known here.
    """

    def __init__(self, model: Any, source: str, num_threads: int | None):
        from coremltools.converters.mil.frontend.milproto import load

        spec = model.get_spec()
        program = load.load(spec, spec.specificationVersion, file_weights_dir=model.weights_dir)
        (function,) = program.functions.values()
        self._inputs, self._outputs = list(function.inputs), [x.name for x in function.outputs]
        self._operations = [x for x in function.operations if x.op_type != "const"]
        self._known, self._threads = operations(), num_threads
        unknown = {x.op_type for x in self._operations} - set(self._known)
        if unknown:
            raise ValueError(
                f"{source} has operations {', '.join(sorted(unknown))}, which can be computed on a "
                "Mac only; export it with --no-verify and compare there"
            )

    def __call__(self, data: np.ndarray) -> list[np.ndarray]:
        import torch

        with torch_threads(self._threads), torch.inference_mode():
            values = {self._inputs[0]: torch.from_numpy(data)}
            for x in self._operations:
                given = {name: _value(var, values) for name, var in x.inputs.items()}
                results = self._known[x.op_type](**given)
                results = results if isinstance(results, (tuple, list)) else (results,)
                values.update(zip((var.name for var in x.outputs), results))
            return [values[name].numpy() for name in self._outputs]


def _value(var: Any, values: dict[str, Any]) -> Any:
    """A tensor; of a constant, its tensor, a list, or what it is if it has one value."""
    import torch

    if isinstance(var, (tuple, list)):
        return [_value(x, values) for x in var]
    if var.name in values:
        return values[var.name]
    constant = var.val
    if not isinstance(constant, (np.ndarray, np.generic)):
        return constant
    if constant.dtype in (np.float16, np.float32) and constant.ndim:
        return torch.from_numpy(constant.astype(np.float32))
    return constant.tolist()


def operations() -> dict[str, Callable[..., Any]]:
    """What each operation computes, of its inputs by name."""
    import torch
    from torch.nn import functional

    return {
        "add": lambda x, y: x + y,
        "sub": lambda x, y: x - y,
        "mul": lambda x, y: x * y,
        "real_div": lambda x, y: x / y,
        "cast": lambda x, dtype: x,
        "clip": lambda x, alpha, beta: x.clamp(alpha, beta),
        "concat": _concat,
        "conv": _conv,
        "leaky_relu": lambda x, alpha: functional.leaky_relu(x, alpha),
        "max_pool": _max_pool,
        "reduce_mean": lambda x, axes, keep_dims: x.mean(axes, keepdim=keep_dims),
        "relu": functional.relu,
        "relu6": functional.relu6,
        "reshape": lambda x, shape: x.reshape(shape),
        "sigmoid": torch.sigmoid,
        "sigmoid_hard": lambda x, alpha, beta: (alpha * x + beta).clamp(0, 1),
        "silu": functional.silu,
        "slice_by_index": _slice,
        "split": lambda x, split_sizes, axis: x.split(split_sizes, axis),
        "transpose": lambda x, perm: x.permute(perm),
        "upsample_bilinear": _upsample,
    }


def _conv(
    x: Any,
    weight: Any,
    strides: list[int],
    pad_type: str,
    pad: list[int],
    dilations: list[int],
    groups: int,
    bias: Any = None,
) -> Any:
    from torch.nn import functional

    x = functional.pad(x, _padding(pad_type, pad))
    return functional.conv2d(x, weight, bias, strides, 0, dilations, groups)


def _max_pool(
    x: Any,
    kernel_sizes: list[int],
    strides: list[int],
    pad_type: str,
    pad: list[int],
    ceil_mode: bool,
) -> Any:
    from torch.nn import functional

    x = functional.pad(x, _padding(pad_type, pad), value=-np.inf)
    return functional.max_pool2d(x, kernel_sizes, strides, ceil_mode=ceil_mode)


def _padding(kind: str, pad: list[int]) -> list[int]:
    """Left, right, upper, lower of MIL's upper, lower, left, right."""
    if kind not in ("custom", "valid"):
        raise ValueError(f"pad_type {kind}; computed are custom and valid")
    return [*pad[2:], *pad[:2]] if kind == "custom" else [0, 0, 0, 0]


def _concat(values: list[Any], axis: int, interleave: bool) -> Any:
    import torch

    if not interleave:
        return torch.cat(values, axis)
    return torch.stack(values, axis + 1).flatten(axis, axis + 1)


def _slice(
    x: Any,
    begin: list[int],
    end: list[int],
    begin_mask: list[bool] | None = None,
    end_mask: list[bool] | None = None,
) -> Any:
    """Of each axis from begin to end, or from and to its ends where a mask says so."""
    rank = x.ndim
    starts = zip(begin, begin_mask or [False] * rank)
    ends = zip(end, end_mask or [False] * rank)
    parts = [
        slice(None if all_before else a, None if all_after else b)
        for (a, all_before), (b, all_after) in zip(starts, ends)
    ]
    return x[tuple(parts)]


def _upsample(
    x: Any, scale_factor_height: float, scale_factor_width: float, align_corners: bool
) -> Any:
    from torch.nn import functional

    factors = (scale_factor_height, scale_factor_width)
    return functional.interpolate(
        x, scale_factor=factors, mode="bilinear", align_corners=align_corners
    )
