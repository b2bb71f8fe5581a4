"""What a port wrote down: ``{"pictures": {"picture_0.png": {"tensor": …, "boxes": …}, …}}``.

A picture's name may have another suffix: ``picture_0.ppm`` is the same one. Of each picture any of
the stages (see ``stages.py``), each an array in one of three forms:

- nested lists;
- the path of a ``.npy`` file, from the json's folder;
- ``{"file": PATH, "shape": [3, 416, 416]}``, raw float32 values, as C programs write them.

``raw`` may be one array, or ``{"cls8": …, "dis8": …}`` with each output by its name. A kit's own
``expected.json`` has the same form.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nanodet_d2.runtime.images import printable
from nanodet_d2.runtime.metadata import ExportMetadata

from .stages import FREE, ROWS, join, output_shapes, stages_of

Stages = dict[str, np.ndarray]
_FLOAT32 = np.dtype("<f4")


def read_result(path: str | Path, x: ExportMetadata, names: Sequence[str]) -> dict[str, Stages]:
    """The stages of each picture, as ``stages.py`` has them, in float64.

    Args:
        x: the contract.
        names: of the kit's pictures.

    Raises:
        FileNotFoundError: if a file is not there.
        ValueError: in one line that names picture and stage, for what is missing, unknown, of
            another shape, or not finite.
    """
    path = Path(path)
    content = _load_json(path)
    pictures = content.get("pictures") if isinstance(content, dict) else None
    if not isinstance(pictures, dict):
        raise ValueError(f'{path}: needed: {{"pictures": {{"{names[0]}": {{…}}, …}}}}')
    given = {Path(name).stem: name for name in pictures}
    stems = {Path(name).stem: name for name in names}
    unknown = [printable(name) for stem, name in given.items() if stem not in stems]
    if unknown:
        raise ValueError(f"{path}: no such picture in the kit: {', '.join(unknown)}; there are: "
                         f"{', '.join(names)}")  # fmt: skip
    missing = [name for stem, name in stems.items() if stem not in given]
    if missing:
        raise ValueError(f"{path} lacks the kit's {', '.join(missing)}")
    return {name: _read_picture(pictures[given[stem]], x, f"{path}: {name}", path.parent)
            for stem, name in stems.items()}  # fmt: skip


def _load_json(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not json: {error}") from error


def _read_picture(content: Any, x: ExportMetadata, where: str, folder: Path) -> Stages:
    allowed = stages_of(x)
    known = isinstance(content, dict) and set(content) <= set(allowed)
    if not known or not content:
        named = ", ".join(map(printable, content)) if isinstance(content, dict) else "no stages"
        raise ValueError(
            f"{where} has {named or 'nothing'}; allowed: one or more of {', '.join(allowed)}"
        )
    return {
        stage: _read_stage(stage, content[stage], x, f"{where}: {stage}", folder)
        for stage in allowed
        if stage in content
    }


def _read_stage(stage: str, value: Any, x: ExportMetadata, where: str, folder: Path) -> np.ndarray:
    if stage == "tensor":
        return _read(value, [3, x.input.height, x.input.width], where, folder)
    if stage in ROWS:
        return _read(value, [FREE, 6], where, folder)
    shapes = output_shapes(x)
    if isinstance(value, dict) and "file" not in value:
        if set(value) != set(x.outputs):
            named = ", ".join(map(printable, value)) or "nothing"
            raise ValueError(f"{where} has {named}; needed: {', '.join(x.outputs)}")
        parts = zip(x.outputs, shapes)
        return join(
            {name: _read(value[name], s, f"{where}: {name}", folder) for name, s in parts}, x
        )
    if x.kind != "raw":
        raise ValueError(f'{where} is one array; needed: {{"{x.outputs[0]}": …, …}}')
    priors = sum(-(-x.input.height // s) * -(-x.input.width // s) for s in x.strides)
    return _read(value, [priors, len(x.class_names) + 4 * (x.reg_max + 1)], where, folder)


def _read(value: Any, shape: list[int], where: str, folder: Path) -> np.ndarray:
    """The array of a value. Another shape with as many values is taken for the memory of this one:
    ``[1, 3, H, W]``, a flat list, or the wrong order of axes, which the check then names."""
    try:
        array = _array_of(value, folder)
    except (TypeError, ValueError, OverflowError, OSError) as error:
        raise ValueError(f"{where}: {' '.join(str(error).split())}") from error
    free = FREE in shape
    if free and array.size == 0:
        array = array.reshape(0, shape[1])
    rows = array.ndim == 2 and array.shape[1] == shape[1]
    if not (rows if free else array.size == math.prod(shape)):
        needed = "[any number, 6]: x0, y0, x1, y1, score, class" if free else shape
        raise ValueError(f"{where} has shape {list(array.shape)}; needed: {needed}")
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        raise ValueError(f"{where} has {len(bad)} values that are not finite (NaN or infinite), "
                         f"the first at {bad[0].tolist()}")  # fmt: skip
    return array if free else array.reshape(shape)


def _array_of(value: Any, folder: Path) -> np.ndarray:
    if isinstance(value, str):
        return _npy(_file(folder, value), printable(value))
    if isinstance(value, dict):
        return _binary(value, folder)
    if not isinstance(value, list):
        raise ValueError(
            f"{printable(repr(value))[:60]}; allowed: nested lists, the path of a .npy file, or "
            '{"file": …, "shape": […]}'
        )
    try:
        return np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError("lists of different lengths, or of what is no number") from error


def _npy(path: Path, name: str) -> np.ndarray:
    try:
        # Mapped, so that a header that promises too much takes no memory.
        found = np.lib.format.open_memmap(path, mode="r")
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{name} is no .npy file: {error}") from error
    if found.dtype.kind not in "fiub":
        raise ValueError(f"{name} has values of type {found.dtype}; needed: numbers")
    return np.array(found, dtype=np.float64)


def _binary(value: dict[str, Any], folder: Path) -> np.ndarray:
    file, shape = value.get("file"), value.get("shape")
    sizes = isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape)
    if set(value) != {"file", "shape"} or not isinstance(file, str) or not sizes:
        raise ValueError('needed: {"file": "tensor.bin", "shape": [3, …, …]}, and no more')
    assert isinstance(shape, list)
    path = _file(folder, file)
    needed = math.prod(shape) * _FLOAT32.itemsize
    if path.stat().st_size != needed:
        raise ValueError(f"{printable(file)} has {path.stat().st_size} bytes; needed: {needed}, "
                         f"float32 of shape {shape}")  # fmt: skip
    return np.fromfile(path, _FLOAT32).reshape(shape).astype(np.float64)


def _file(folder: Path, name: str) -> Path:
    try:
        there = (folder / name).is_file()
    except ValueError:  # a zero byte
        there = False
    if not there:
        raise ValueError(f"file {printable(name)} not found")
    return folder / name
