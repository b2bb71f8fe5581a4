"""Is the metadata of a file what it should be, and does the file give what the metadata says?

Needs NumPy only. Letters: N images, P priors, C classes, R reg_max, K detections.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

CHANNEL_ORDERS = ("BGR", "RGB")
RESIZES = ("stretch", "fit")
PRIOR_OFFSETS = (0.0, 0.5)
NMS = ("plain", "voting")
PRECISIONS = ("", "float32", "float16", "int8", "int8_float16")
FIXED = "fixed"  # in a dataclass field's metadata: its default is the only value that is allowed

# field -> (is it allowed?, what is), for values of the right type
_LIMITS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "class_names": (lambda x: len(x) > 0, "one name or more"),
    "strides": (lambda x: len(x) > 0 and min(x) > 0, "numbers above 0"),
    "reg_max": (lambda x: x >= 1, "1 or more"),
    "score_threshold": (lambda x: 0 <= x <= 1, "0 to 1"),
    "nms_threshold": (lambda x: 0 <= x <= 1, "0 to 1"),
    "nms": (lambda x: x in NMS, " or ".join(NMS)),
    "vote_threshold": (lambda x: 0 <= x <= 1, "0 to 1"),
    "vote_power": (lambda x: 0 <= x <= 100, "0 to 100"),
    "max_detections": (lambda x: x >= 1, "1 or more"),
    "height": (lambda x: x >= 1, "1 or more"),
    "width": (lambda x: x >= 1, "1 or more"),
    "size_divisor": (lambda x: x >= 1, "1 or more"),
    "channel_order": (lambda x: x in CHANNEL_ORDERS, " or ".join(CHANNEL_ORDERS)),
    "mean": (lambda x: len(x) == 3, "three numbers"),
    "std": (lambda x: len(x) == 3 and min(x) > 0, "three numbers above 0"),
    "resize": (lambda x: x in RESIZES, " or ".join(RESIZES)),
    "prior_offset": (lambda x: x in PRIOR_OFFSETS, " or ".join(map(str, PRIOR_OFFSETS))),
    "precision": (lambda x: x in PRECISIONS, ", ".join(PRECISIONS[1:])),
    "calibration_images": (lambda x: x >= 0, "0 or more"),
}


def check_fields(cls: type, values: dict[str, Any], source: str) -> None:
    """Compare values with a dataclass's annotations, and with what its fields can mean.

    Args:
        cls: of fields of text, numbers, and tuples and dicts of those.
        source: named in errors.

    Raises:
        ValueError: naming the field, its value, and what is allowed.
    """
    hints = typing.get_type_hints(cls)
    fixed = {x.name: x.default for x in dataclasses.fields(cls) if FIXED in x.metadata}
    for name, value in values.items():
        if not _fits(value, hints[name]):
            words = getattr(hints[name], "__name__", "")
            words = str(hints[name]) if typing.get_origin(hints[name]) else words
            raise ValueError(f"metadata of {source} has {name} {value!r}; allowed: {words}")
        if name in _LIMITS:
            allowed, words = _LIMITS[name]
            if not allowed(value):
                raise ValueError(f"metadata of {source} has {name} {value!r}; allowed: {words}")
        if value != fixed.get(name, value):
            raise ValueError(f"metadata of {source} has {name} {value!r}; allowed: {fixed[name]}")


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(x, arguments[0]) for x in value)
    if origin is dict:
        pairs = value.items() if isinstance(value, dict) else [(None, None)]
        return all(_fits(k, arguments[0]) and _fits(v, arguments[1]) for k, v in pairs)
    if hint is float:  # json has whole numbers for some
        return type(value) in (int, float) and math.isfinite(value)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return isinstance(value, hint)
    return type(value) is hint  # True is no 1 here


def check_outputs(
    outputs: Sequence[np.ndarray], metadata: Any, count: int, size: Sequence[int], source: str
) -> None:
    """Compare the form of a network's outputs with what the metadata says.

    Metadata of another model would give boxes and names without sense.

    Args:
        metadata: an ``ExportMetadata``.
        count: of images, N.
        size: (height, width) of the network's input.

    Raises:
        ValueError: naming what was found, and what the metadata asks for.
    """
    found = [tuple(x.shape) for x in outputs]
    expected = expected_shapes(metadata, count, size)
    if metadata.kind == "end2end" and len(found) == 3 and len(found[0]) > 0:
        expected = [(found[0][0], *shape[1:]) for shape in expected]  # K is free
    if found != expected:
        raise ValueError(
            f"{source} gives outputs of shape {_words(found)}; its metadata asks for "
            f"{_words(expected)}: kind {metadata.kind}, {len(metadata.class_names)} classes, "
            f"reg_max {metadata.reg_max}, strides {list(metadata.strides)}, "
            f"input {size[0]} x {size[1]}"
        )
    classes = outputs[2] if metadata.kind == "end2end" else np.empty(0)
    if classes.size and not 0 <= classes.min() <= classes.max() < len(metadata.class_names):
        raise ValueError(
            f"{source} gives classes {classes.min()} to {classes.max()}; its metadata has "
            f"{len(metadata.class_names)} class names"
        )


def expected_shapes(metadata: Any, count: int, size: Sequence[int]) -> list[tuple[int, ...]]:
    """Shapes of the outputs for ``count`` images of (height, width), those of ncnn joined to one,
    and with no detection for an end2end file."""
    height, width = size
    priors = sum(-(-height // stride) * -(-width // stride) for stride in metadata.strides)
    classes = len(metadata.class_names)
    if metadata.kind == "raw":
        return [(count, priors, classes + 4 * (metadata.reg_max + 1))]
    if metadata.kind == "decoded":
        return [(count, priors, 4), (count, priors, classes)]
    return [(0, 4), (0,), (0,)]


def _words(shapes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join(str(shape) for shape in shapes) or "none at all"
