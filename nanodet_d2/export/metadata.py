"""What an exported file says about itself, and the names of exported files.

The same json lies inside the file, where its format can hold it, and beside it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .checks import check_fields

FORMAT_VERSION = 1
METADATA_KEY = "nanodet_d2"  # the entry inside a file
KINDS = ("raw", "decoded", "end2end")
# What Detector takes the path of, by the end of its name.
SUFFIXES = {
    "onnx": ".onnx",
    "openvino": ".xml",
    "ncnn": ".ncnn.param",
    "torchscript": ".torchscript.pt",
}
OTHER_NCNN = ".param"  # as others name them, e.g. the reference


@dataclasses.dataclass(frozen=True)
class InputDescription:
    """The network's input; of an end2end file, what the graph makes of the image.

    Attributes:
        name: of the input tensor.
        height, width: pixels; with ``dynamic`` those the model is meant for.
        dynamic: whether batch, height and width are free (multiples of the largest stride).
        channel_order: "BGR" or "RGB", of the normalised tensor.
        mean, std: per channel in that order, of values in [0, 255].
        resize: "stretch" to (height, width), pixels addressed by their index: output pixel i is
            input pixel i * input size / output size, bilinear, rounded to uint8.
    """

    name: str
    height: int
    width: int
    dynamic: bool
    channel_order: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: str = "stretch"


@dataclasses.dataclass(frozen=True)
class ExportMetadata:
    """All that a program needs to run an exported file.

    Attributes:
        name: of the model, the config's stem.
        kind: "raw", "decoded" or "end2end".
        class_names: in the order of the scores.
        strides: of the levels, in the order of the priors.
        reg_max: a box side has ``reg_max + 1`` logits.
        outputs: names of the output tensors, in order.
        score_threshold, nms_threshold, max_detections: of the detections.
        versions: of what wrote the file.
        checkpoint_sha256: of the checkpoint's file.
    """

    name: str
    kind: str
    class_names: tuple[str, ...]
    strides: tuple[int, ...]
    reg_max: int
    input: InputDescription
    outputs: tuple[str, ...]
    score_threshold: float
    nms_threshold: float
    max_detections: int
    versions: dict[str, str]
    checkpoint_sha256: str
    format_version: int = FORMAT_VERSION

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str, source: str) -> ExportMetadata:
        """Read what :meth:`to_json` wrote; ``source`` is named in errors.

        Raises:
            ValueError: if it is no such json; the message tells what is missing, or which value is
                of another type or out of its range.
        """
        try:
            content = json.loads(text)
        except ValueError as error:
            raise ValueError(f"metadata of {source} is not json: {error}") from error
        version = content.get("format_version") if isinstance(content, dict) else None
        if version != FORMAT_VERSION:
            raise ValueError(
                f"metadata of {source} has format_version {version}; allowed: {FORMAT_VERSION}"
            )
        fields = _pick(cls, content, source)
        described = _pick(InputDescription, fields["input"], source)
        check_fields(InputDescription, described, source)
        fields["input"] = InputDescription(**described)
        check_fields(cls, fields, source)
        if fields["kind"] not in KINDS:
            raise ValueError(
                f"metadata of {source} has kind {fields['kind']!r}; allowed: {', '.join(KINDS)}"
            )
        return cls(**fields)


def _pick(cls: type, content: Any, source: str) -> dict[str, Any]:
    """The fields of a dataclass, lists as tuples."""
    names = [field.name for field in dataclasses.fields(cls)]
    missing = [n for n in names if not isinstance(content, dict) or n not in content]
    if missing:
        raise ValueError(f"metadata of {source} lacks {', '.join(missing)}")
    values = {name: content[name] for name in names}
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


def format_of(path: str | Path) -> str:
    """The format of a file's name.

    Raises:
        ValueError: for another name; the message lists the known ones.
    """
    for name, suffix in SUFFIXES.items():
        if str(path).endswith(suffix):
            return name
    if str(path).endswith(OTHER_NCNN):
        return "ncnn"
    raise ValueError(f"{path} is no exported file; known names: *{', *'.join(SUFFIXES.values())}")


def export_path(
    folder: Path, name: str, format: str, *, kind: str = "raw", variant: str = ""
) -> Path:
    """``<name>[_<kind> unless raw][_<variant>]<suffix of the format>`` in a folder."""
    stem = "_".join(x for x in (name, "" if kind == "raw" else kind, variant) if x)
    return Path(folder) / (stem + SUFFIXES[format])


def metadata_path(path: str | Path) -> Path:
    """The json beside an exported file: ``model.onnx`` has ``model.onnx.json``, ``model.xml``
    ``model.openvino.json``, ``model.ncnn.param`` ``model.ncnn.json``, and so on."""
    format = format_of(path)
    stem = str(path).removesuffix(SUFFIXES[format]).removesuffix(OTHER_NCNN)
    return Path(f"{stem}.{format}.json")


def files_of(path: str | Path) -> list[Path]:
    """All files of a model: the one that ``Detector`` takes, that of its weights, the json."""
    path = Path(path)
    weights = {"openvino": [".xml"], "ncnn": [".param"]}.get(format_of(path), [])
    bins = [Path(str(path)[: -len(suffix)] + ".bin") for suffix in weights]
    return [path, *bins, metadata_path(path)]


def read_metadata(path: str | Path, embedded: str | None = None) -> ExportMetadata:
    """Metadata of an exported file: what is inside it, else the json beside it.

    Raises:
        ValueError: if there is neither, or fields are missing or wrong.
    """
    if embedded:
        return ExportMetadata.from_json(embedded, str(path))
    beside = metadata_path(path)
    if not beside.is_file():
        fields: Sequence[str] = [f.name for f in dataclasses.fields(ExportMetadata)]
        raise ValueError(
            f"{path} has no metadata, neither inside nor in {beside.name} beside it. Export it with"
            f" python -m nanodet_d2.export, or give a json with {', '.join(fields)}"
        )
    return ExportMetadata.from_json(beside.read_text(encoding="utf-8"), str(beside))
