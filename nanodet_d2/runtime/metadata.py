"""What an exported file says about itself.

The same json lies inside the file, where its format can hold it, and beside it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .checks import FIXED, NMS, check_fields

FORMAT_VERSION = 1
METADATA_KEY = "nanodet_d2"  # the entry inside a file
KINDS = ("raw", "decoded", "end2end")
CHANNELS_LAST = "NHWC"
STRETCH, FIT = "stretch", "fit"  # what may become of an image on its way to the input's size


def _fixed(value: Any) -> Any:
    """A field with one value so far: what a program has to do, not what it may choose."""
    return dataclasses.field(default=value, metadata={FIXED: True})


@dataclasses.dataclass(frozen=True)
class InputDescription:
    """The network's input; of an end2end file, what the graph makes of the image.

    Attributes:
        name: of the input tensor.
        height, width: pixels; with ``dynamic`` those the model is meant for.
        dynamic: whether batch, height and width are free.
        channel_order: "BGR" or "RGB", of the normalised tensor.
        mean, std: per channel in that order, of values in [0, 255].
        resize: "stretch" to (height, width), with no regard to the image's proportions; or "fit":
            by one factor, the largest with which all of it has room, see ``preprocess.fit_of``. It
            lies in the upper left, and the rest of the normalised tensor is 0.
        size_divisor: what height and width are multiples of, where they are free.
        axes: "NCHW", or "NHWC" where programs have images so (LiteRT), or "HWC" of an image.
        dtype: "float32", or "uint8" of an image.
        interpolation: between the four pixels around a position.
        pixel_offset: of a pixel's place from its index. With 0 output pixel i lies at i * input
            size / output size; half-pixel centres would be 0.5, (i + 0.5) * … - 0.5. ("fit" moves
            it by half of what its rounded size leaves over.)
        position_steps: positions are rounded to so many steps of a pixel…
        position_rounding: …and of two as near to the even one. (Where an engine's rounding of the
            product decides, both are right.)
        border: grey level of what lies beyond the image's edge.
        value_rounding: of the resized values, to whole grey levels.
    """

    name: str
    height: int
    width: int
    dynamic: bool
    channel_order: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: str = STRETCH
    size_divisor: int = 1
    axes: str = "NCHW"
    dtype: str = "float32"
    interpolation: str = _fixed("bilinear")
    pixel_offset: float = _fixed(0.0)
    position_steps: int = _fixed(32)
    position_rounding: str = _fixed("half_to_even")
    border: int = _fixed(0)
    value_rounding: str = _fixed("half_up")

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
        name: of the model: the config's stem, and the input's size if it is not the config's.
        kind: "raw", "decoded" or "end2end".
        class_names: in the order of the scores.
        strides: of the levels, in the order of the priors.
        reg_max: a box side has ``reg_max + 1`` logits.
        outputs: names of the output tensors, in order.
        score_threshold, nms_threshold, max_detections: of the detections.
        versions: of what wrote the file.
        checkpoint_sha256: of the checkpoint's file.
        precision: "float32", "float16" (weights), "int8", "int8_float16"; "" of a file from before
            this was written.
        calibration_images: number of the pictures that an INT8 file was calibrated with.
        calibration_sha256: of their file names, sorted, one a line; "" without any.
        output_axes: of each output, as "N,P,C+4*(R+1)": N images, P priors, C classes, R reg_max,
            K detections, H8 and W8 rows and columns of the level of stride 8. They follow from
            kind, outputs and strides, whatever a json says; empty if these fit no kind of file.
        score_form: scores are in [0, 1]; the file has applied the sigmoid.
        score_comparison: with ``score_threshold``: a candidate's score is "greater".
        prior_order: priors come level by level, each row by row.
        prior_offset: of a prior from its cell's upper left corner, in strides: 0 or, before
            NanoDet-Plus, half a cell.
        box_form: a side's distance is the mean of 0…reg_max, weighted by the softmax of its logits…
        box_unit: …in strides of its level.
        box_sides: the order of the distances from the prior.
        box_clip: boxes are clipped to the input.
        nms_scope: what a box may suppress: those of its class…
        nms_rivals: …if it is kept itself…
        nms_comparison: …and their IoU is "greater" than ``nms_threshold``.
        nms_order: best score first; of equal ones the first by prior, then by class.
        nms_limit: ``max_detections`` are "kept" boxes of all classes together, empty ones included.
        empty_boxes: overlap nothing, and are "dropped" after NMS.
        nms: "plain", or "voting": then the boxes that are kept move to a mean of some that they
            suppressed; scores, classes and order stay. ``decode_numpy.py`` has the words.
        vote_threshold: a suppressed box votes whose IoU with the kept one is…
        vote_comparison: …"greater", before any box has moved;
        vote_owner: for one box alone, the best of those that suppress it: the "first_kept";
        vote_scope: if it comes before the last box that is kept ("before_last_kept") where
            ``max_detections`` are, anywhere where fewer are.
        vote_weight: of each vote in the mean, and of the kept box's own: its "score"…
        vote_power: …to this power; 1 in files from before it was there.
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
    precision: str = ""
    calibration_images: int = 0
    calibration_sha256: str = ""
    output_axes: tuple[str, ...] = ()
    score_form: str = _fixed("after_sigmoid")
    score_comparison: str = _fixed("greater")
    prior_order: str = _fixed("level_row_column")
    prior_offset: float = 0.0
    box_form: str = _fixed("softmax_mean")
    box_unit: str = _fixed("stride")
    box_sides: str = _fixed("left_top_right_bottom")
    box_clip: str = _fixed("input")
    nms_scope: str = _fixed("class")
    nms_rivals: str = _fixed("kept")
    nms_comparison: str = _fixed("greater")
    nms_order: str = _fixed("score_prior_class")
    nms_limit: str = _fixed("kept")
    empty_boxes: str = _fixed("dropped")
    nms: str = "plain"
    vote_threshold: float = 0.65
    vote_comparison: str = _fixed("greater")
    vote_owner: str = _fixed("first_kept")
    vote_scope: str = _fixed("before_last_kept")
    vote_weight: str = _fixed("score")
    vote_power: float = 1.0

    @property
    def vote_above(self) -> float | None:
        """``vote_threshold`` where boxes vote, None where NMS is plain."""
        return self.vote_threshold if self.nms == "voting" else None

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
        given = fields["input"] if isinstance(fields["input"], dict) else {}
        # Files from before axes and type were written mean those of their kind.
        axes, dtype = input_form(fields["kind"])
        described = _pick(InputDescription, {"axes": axes, "dtype": dtype, **given}, source)
        check_fields(InputDescription, described, source)
        fields["input"] = InputDescription(**described)
        check_fields(cls, fields, source)
        if fields["kind"] not in KINDS:
            raise ValueError(
                f"metadata of {source} has kind {fields['kind']!r}; allowed: {', '.join(KINDS)}"
            )
        orders = (axes,) if fields["kind"] == "end2end" else (axes, CHANNELS_LAST)
        for name, allowed in (("axes", orders), ("dtype", (dtype,))):
            if described[name] not in allowed:
                raise ValueError(
                    f"metadata of {source} has input {name} {described[name]!r}; allowed for kind "
                    f"{fields['kind']}: {', '.join(allowed)}"
                )
        found = cls(**fields)
        return found.with_outputs(found.outputs)

    def with_nms(self, nms: str, source: str) -> ExportMetadata:
        """The same with another NMS after the network; ``source`` is named in errors.

        Raises:
            ValueError: for an unknown one, or another one than an end2end file's own.
        """
        if nms not in NMS:
            raise ValueError(f"nms {nms!r}; allowed: {', '.join(NMS)}")
        if self.kind == "end2end" and nms != self.nms:
            raise ValueError(
                f"{source} has its NMS in the graph, {self.nms}, found nms {nms!r}; export it "
                "with --kind raw or decoded"
            )
        return dataclasses.replace(self, nms=nms)

    def with_outputs(self, outputs: Sequence[str]) -> ExportMetadata:
        """The same with outputs of these names, in the form that the kind has them in: a raw file
        has one, or those of ncnn, scores of each level and then box logits of each. Axes stay
        unknown where somebody has described others."""
        if self.kind == "decoded":
            axes: tuple[str, ...] = ("N,P,4", "N,P,C")
        elif self.kind == "end2end":
            axes = ("K,4", "K", "K")
        elif len(outputs) == 1:
            axes = ("N,P,C+4*(R+1)",)
        else:
            axes = (
                *(f"C,H{s},W{s}" for s in self.strides),
                *(f"H{s},W{s},4*(R+1)" for s in self.strides),
            )
        axes = axes if len(axes) == len(outputs) else ()
        return dataclasses.replace(self, outputs=tuple(outputs), output_axes=axes)


def input_form(kind: str) -> tuple[str, str]:
    """Axes and type of a kind's input; some formats have it with the channels last."""
    return ("HWC", "uint8") if kind == "end2end" else ("NCHW", "float32")


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
