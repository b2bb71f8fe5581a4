"""What an exported file says about itself.

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


@dataclasses.dataclass(frozen=True)
class InputDescription:
    """The network's input; of an end2end file, what the graph makes of the image.

    Attributes:
        name: of the input tensor.
        height, width: pixels; with ``dynamic`` those the model is meant for.
        dynamic: whether batch, height and width are free.
        channel_order: "BGR" or "RGB", of the normalised tensor.
        mean, std: per channel in that order, of values in [0, 255].
        resize: "stretch" to (height, width), pixels addressed by their index: output pixel i is
            input pixel i * input size / output size, bilinear, rounded to uint8.
        size_divisor: what height and width are multiples of, where they are free.
    """

    name: str
    height: int
    width: int
    dynamic: bool
    channel_order: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: str = "stretch"
    size_divisor: int = 1

    def resized(self, size: Sequence[int], source: str) -> InputDescription:
        """The same for another (height, width); ``source`` is named in errors.

        Raises:
            ValueError: if the file does not take it.
        """
        if tuple(size) == (self.height, self.width):
            return self
        if not self.dynamic:
            raise ValueError(
                f"{source} takes an input of {self.height} x {self.width} only, found input_size "
                f"{list(size)}; export it with --dynamic"
            )
        check_size(size, self.size_divisor)
        return dataclasses.replace(self, height=int(size[0]), width=int(size[1]))


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


def check_size(size: Sequence[int], divisor: int) -> None:
    """Raise ``ValueError`` for an input that is no (height, width) of multiples of ``divisor``."""
    if len(size) != 2 or any(x < divisor or x % divisor for x in size):
        raise ValueError(
            f"input size {list(size)}; allowed: height and width, multiples of {divisor}"
        )


def _pick(cls: type, content: Any, source: str) -> dict[str, Any]:
    """The fields of a dataclass, lists as tuples; those of later versions may be absent."""
    fields = dataclasses.fields(cls)
    content = content if isinstance(content, dict) else {}
    missing = [x.name for x in fields if x.name not in content and x.default is dataclasses.MISSING]
    if missing:
        raise ValueError(f"metadata of {source} lacks {', '.join(missing)}")
    values = {x.name: content.get(x.name, x.default) for x in fields}
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


def read_metadata(path: str | Path, embedded: str | None, beside: Path) -> ExportMetadata:
    """Metadata of an exported file: what is inside it, else the json beside it.

    Raises:
        ValueError: if there is neither, or fields are missing or wrong.
    """
    if embedded:
        return ExportMetadata.from_json(embedded, str(path))
    if not beside.is_file():
        fields = [f.name for f in dataclasses.fields(ExportMetadata)]
        raise ValueError(
            f"{path} has no metadata, neither inside nor in {beside.name} beside it. Export it with"
            f" nanodet-d2 export, or give a json with {', '.join(fields)}"
        )
    return ExportMetadata.from_json(beside.read_text(encoding="utf-8"), str(beside))
