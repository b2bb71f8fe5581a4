"""What a detector of other origin wants for its input, and what its outputs mean: a description.

It is one of ``DECODINGS`` by name, or a json of the fields of :class:`Decoding`:

    {"kind": "gfl", "order": "RGB", "mean": [123.7, 116.3, 103.5], "std": [58.4, 57.1, 57.4],
     "strides": [8, 16, 32, 64], "offset": 0.5, "score_threshold": 0.025, "nms_threshold": 0.6}
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nanodet_d2.runtime.checks import check_fields

KINDS = ("detr", "gfl", "yolox")
_ALLOWED: dict[str, tuple[str, ...]] = {
    "kind": KINDS,
    "order": ("RGB", "BGR"),
    "resize": ("stretch", "fit"),
    "interpolation": ("linear", "cubic"),
}


@dataclasses.dataclass(frozen=True)
class Decoding:
    """Letters: P priors, C classes, S strides, K detections; g cells in a row of a level.

    Attributes:
        kind: of the outputs, whose first axis, the batch, may be missing. "detr": ``labels``
            (1, K), ``boxes`` (1, K, 4) XYXY in pixels and ``scores`` (1, K), by these names, no
            NMS to be done; a second input of two whole numbers gets the width and height that the
            boxes are in pixels of. "gfl": S outputs of class scores (1, g², C), then S of box
            distributions (1, g², 4 * bins), as of NanoDet. "yolox": (1, P, 5 + C): centre offset,
            logarithm of the size, objectness, class scores.
        order: of the channels.
        scale, mean, std: the network's value of a grey level g is (g * scale - mean) / std.
        resize: "stretch" to the input, or "fit": one factor for both sides, upper left, beside it
            ``border``.
        interpolation: between pixels, whose centres are at halves.
        border: grey level.
        strides: of the levels, in the order of the priors.
        offset: of a prior from its cell's upper left corner, in strides ("gfl").
        bins: of a side of a box ("gfl").
        score_threshold, nms_threshold, max_detections: as of our models.
    """

    kind: str
    order: str = "RGB"
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    resize: str = "stretch"
    interpolation: str = "linear"
    border: int = 114
    strides: tuple[int, ...] = (8, 16, 32)
    offset: float = 0.0
    bins: int = 8
    score_threshold: float = 0.05
    nms_threshold: float = 0.6
    max_detections: int = 100

    @classmethod
    def from_json(cls, text: str, source: str) -> Decoding:
        """Read a description; ``source`` is named in errors.

        Raises:
            ValueError: if it is no such json, naming what is missing, unknown or wrong.
        """
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{source} is not json: {error}") from error
        fields = [x.name for x in dataclasses.fields(cls)]
        unknown = [str(x) for x in content if x not in fields] if isinstance(content, dict) else []
        if unknown or not isinstance(content, dict) or "kind" not in content:
            found = ", ".join(unknown) or "no kind"
            raise ValueError(f"{source} has {found}; needed: kind; allowed: {', '.join(fields)}")
        values: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in content.items()
        }
        check_fields(cls, values, source)
        described = cls(**values)
        described.check(source)
        return described

    def check(self, source: str) -> None:
        """Raise ``ValueError`` for a word or a number that means nothing."""
        for name, allowed in _ALLOWED.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{source} has {name} {getattr(self, name)!r}; allowed: {', '.join(allowed)}"
                )
        limits: dict[str, Callable[[Any], bool]] = {
            "scale": lambda x: x > 0, "bins": lambda x: x >= 2, "border": lambda x: 0 <= x <= 255
        }  # fmt: skip
        for name, fits in limits.items():
            if not fits(getattr(self, name)):
                raise ValueError(
                    f"{source} has {name} {getattr(self, name)}; allowed: scale above 0, bins from "
                    "2 on, border 0 to 255"
                )


# Thresholds are those that each project gives for its own evaluation, as far as it gives any.
DECODINGS = {
    "deimv2": Decoding("detr", scale=1 / 255),
    "picodet": Decoding(
        "gfl",
        mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375),
        interpolation="cubic",
        strides=(8, 16, 32, 64),
        offset=0.5,
        score_threshold=0.025,
    ),
    "yolox": Decoding("yolox", order="BGR", resize="fit", score_threshold=0.01, nms_threshold=0.65),
}


def find_decoding(name: str) -> Decoding:
    """A description by its name, or from a json file.

    Raises:
        ValueError: for an unknown name, or a json that is none.
    """
    if name in DECODINGS:
        return DECODINGS[name]
    path = Path(name)
    if not path.is_file():
        raise ValueError(f"decoding {name!r}; allowed: {', '.join(DECODINGS)}, or a json file")
    return Decoding.from_json(path.read_text(encoding="utf-8"), name)
