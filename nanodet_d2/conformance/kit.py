"""Writing a kit for a model's file, and reading one. A kit is a folder:

- ``contract.json``: see ``contract.py``;
- ``picture_0.png``, …, and the same as ``picture_0.ppm`` for programs that read nothing else;
- ``picture_0.tensor.npy``, ``.raw.<output>.npy``, ``.candidates.npy``, ``.kept.npy``,
  ``.boxes.npy``: the stages (see ``stages.py``), outputs as the file gives them;
- ``expected.json``: a result (see ``result.py``) that is right, with all rows in it.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from nanodet_d2.runtime import Detector
from nanodet_d2.runtime.backends import backend_of
from nanodet_d2.runtime.images import load_image
from nanodet_d2.runtime.metadata import ExportMetadata

from . import stages
from .contract import CONTRACT_FILE, contract_of, read_contract
from .pictures import choose_pictures
from .result import Stages, read_result

logger = logging.getLogger(__name__)

EXPECTED_FILE = "expected.json"


@dataclasses.dataclass(frozen=True)
class Picture:
    """One picture with what is right for it.

    Attributes:
        name: of its file.
        image: (H, W, 3) uint8 BGR.
        stages: arrays by name, as ``stages.py`` has them.
    """

    name: str
    image: np.ndarray
    stages: Stages


@dataclasses.dataclass(frozen=True)
class Kit:
    """A kit that was read."""

    metadata: ExportMetadata
    pictures: tuple[Picture, ...]


def kit_folder(model: str | Path) -> Path:
    """``<model stem>_<format>_kit`` beside a model's file: several formats have one stem, and raw
    outputs of their own."""
    backend = backend_of(model)
    return Path(f"{backend.stem(model)}_{backend.format}_kit")


def write_kit(
    model: str | Path,
    folder: Path | None = None,
    *,
    images: Sequence[str | Path] = (),
    metadata: str | Path | None = None,
    input_size: Sequence[int] | None = None,
) -> Path:
    """Run a model's file on three pictures and write its kit; returns the folder.

    Args:
        folder: to write; an earlier kit in it is replaced. :func:`kit_folder` if None.
        images: see :func:`choose_pictures`.
        metadata, input_size: as ``Detector``'s.

    Raises:
        ValueError, ImportError, FileNotFoundError: as ``Detector``; and ``ValueError`` for a folder
            that holds something else.
    """
    detector = Detector(model, num_threads=1, metadata=metadata, input_size=input_size)
    x = detector.metadata
    if not x.output_axes:
        raise ValueError(
            f"{model}: its metadata has outputs {', '.join(x.outputs)}; needed for kind {x.kind}: "
            f"all of the file, in order, with strides {list(x.strides)}"
        )
    pictures = choose_pictures(images, x.input.height, x.input.width)
    found = {name: run_stages(detector, image) for name, image in pictures.items()}
    folder = kit_folder(model) if folder is None else folder
    _clear(folder)
    expected = {}
    for name, image in pictures.items():
        for path in (folder / name, (folder / name).with_suffix(".ppm")):
            if not cv2.imwrite(str(path), image):
                raise OSError(f"{path} cannot be written")
        expected[name] = _write_stages(folder, Path(name).stem, found[name], x)
    contract = contract_of(x, file=Path(model).name, format=backend_of(model).format)
    _write_json(folder / CONTRACT_FILE, contract)
    _write_json(folder / EXPECTED_FILE, {"pictures": expected})
    empty = [name for name in pictures if not len(found[name]["boxes"])]
    if empty:
        logger.warning(
            "%s: nothing is found in %s, which then cannot show mistakes in boxes; give other "
            "pictures with --images", folder, ", ".join(empty)
        )  # fmt: skip
    return folder


def run_stages(detector: Detector, image: np.ndarray) -> Stages:
    """All stages of an image (H, W, 3) uint8 BGR that a file has."""
    x = detector.metadata
    if x.kind == "end2end":
        found = detector(image)
        return {"boxes": stages.rows_of(found.xyxy, found.confidence, found.class_id)}
    tensor = detector.prepare([image])
    outputs = detector.run(tensor)
    # What runs ncnn's files has joined their outputs already.
    raw = outputs["output"][0] if stages.is_split(x) else stages.join(outputs, x)
    candidates = stages.gather(stages.decode(raw, x), x)
    kept = stages.suppress(candidates, x)
    boxes = stages.scale(kept, x, image.shape[:2])
    return dict(zip(stages.STAGES, (tensor[0], raw, candidates, kept, boxes)))


def read_kit(folder: str | Path) -> Kit:
    """Read a kit.

    Raises:
        FileNotFoundError: if there is no kit in the folder, or a file of it is missing.
        ValueError: for a file that is not what it should be.
    """
    folder = Path(folder)
    contract, expected = folder / CONTRACT_FILE, folder / EXPECTED_FILE
    for path in (contract, expected):
        if not path.is_file():
            raise FileNotFoundError(f"{folder} is no kit: it has no {path.name}")
    metadata = read_contract(contract)
    names = sorted(path.name for path in folder.glob("picture_*.png"))
    if not names:
        raise FileNotFoundError(f"{folder} is no kit: it has no picture_0.png")
    result = read_result(expected, metadata, names)
    pictures = (Picture(name, load_image(folder / name), result[name]) for name in names)
    return Kit(metadata, tuple(pictures))


def _clear(folder: Path) -> None:
    """Make the folder, or take the kit out of it."""
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / CONTRACT_FILE).is_file():
            raise ValueError(f"{folder} is there and holds something else than a kit")
        for path in [folder / CONTRACT_FILE, folder / EXPECTED_FILE, *folder.glob("picture_*.*")]:
            path.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)


def _write_stages(folder: Path, stem: str, found: Stages, x: ExportMetadata) -> dict[str, Any]:
    """Write a picture's arrays; returns what a result says of them."""
    said: dict[str, Any] = {}
    for stage, array in found.items():
        if stage == "raw":
            outputs = stages.split(array, x)
            said[stage] = {
                name: _write_array(folder / f"{stem}.raw.{name}.npy", values)
                for name, values in outputs.items()
            }
        else:
            said[stage] = _write_array(folder / f"{stem}.{stage}.npy", array)
        if stage in stages.ROWS:
            said[stage] = [_row(values) for values in array.tolist()]
    return said


def _write_array(path: Path, array: np.ndarray) -> str:
    np.save(path, np.ascontiguousarray(array, dtype=np.float32))
    return path.name


def _row(values: list[float]) -> list[float]:
    """Numbers of a row with the digits that a float32 has."""
    return [*(float(f"{value:.9g}") for value in values[:5]), int(values[5])]


def _write_json(path: Path, content: dict[str, Any]) -> None:
    """Readable: each entry, and each row, in a line."""
    entries = (
        f" {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}"
        for name, value in content.items()
    )
    text = ",\n".join(entries)
    path.write_text("{\n" + text + "\n}\n", encoding="utf-8")
