"""What an export format is: all that the command, its help and its tables know of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from torch import nn
from torch.export import ExportedProgram

from nanodet_d2.runtime.backends import Backend
from nanodet_d2.runtime.metadata import ExportMetadata

from ..int8 import Plan, Scheme
from ..isolated import Environment

OUTPUTS = {
    "raw": ("output",),
    "decoded": ("boxes", "scores"),
    "end2end": ("boxes", "scores", "classes"),
}


class Material(Protocol):
    """What files are written from, made when it is asked for; ``Products`` is it.

    Attributes:
        isolated: whether converters run in environments of their own.
        metadata: of the model.
    """

    isolated: bool
    metadata: ExportMetadata

    def network(self, kind: str) -> nn.Module:
        """The network "raw", "split" or "decoded"."""

    def program(self, metadata: ExportMetadata) -> ExportedProgram:
        """The network of a file's kind, with its operators and shapes."""

    def onnx(self, metadata: ExportMetadata, *, int8: Scheme | None = None) -> Any:
        """An ``onnx.ModelProto`` of a file's kind, to do with as one likes."""

    def quantized(self, scheme: Scheme) -> tuple[Material, Plan]:
        """The same of the network that was prepared for INT8, and what is to be done with it."""


class Format:
    """A format; a subclass in a module of this package is found by itself.

    Attributes:
        backend: what runs its files; it tells the format's name and the suffix.
        packages: that write it, by the names they are imported by.
        scheme: what its engine quantises, if it has ``int8``.
        environment: where ``packages`` are with ``--isolated``, if they do not go with others.
        has_nms: whether NMS is in the graph of each of its files.
        fits_images: whether its files can serve a model whose images keep their proportions.
        has_float64: whether its engine computes float64 as such, without which an end2end graph
            cannot tell to the pixel how large an image is that keeps its proportions.
        options: what it can do beyond raw float32 files, of ``kind decoded``, ``kind end2end``,
            ``dynamic``, ``fp16`` and ``int8``.
    """

    backend: ClassVar[type[Backend]]
    packages: ClassVar[tuple[str, ...]] = ()
    scheme: ClassVar[Scheme | None] = None
    environment: ClassVar[Environment | None] = None
    options: ClassVar[tuple[str, ...]] = ()
    has_nms: ClassVar[bool] = False
    fits_images: ClassVar[bool] = True
    has_float64: ClassVar[bool] = False

    def outputs(self, kind: str, strides: Sequence[int]) -> tuple[str, ...]:
        """Names of the output tensors."""
        return OUTPUTS[kind]

    def describe(self, metadata: ExportMetadata) -> ExportMetadata:
        """Metadata of a file, where they differ from those of the kind that is asked for."""
        return metadata

    def write(
        self, products: Material, path: Path, metadata: ExportMetadata, *, fp16: bool, int8: bool
    ) -> None:
        """Write a model's file, with its metadata inside where the format can hold it."""
        raise NotImplementedError
