"""What could be shipped: formats x precisions x input sizes."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from nanodet_d2.export.formats import find_format, formats
from nanodet_d2.export.job import Job

PRECISIONS = ("float32", "float16", "int8")
SIDES = (256, 320, 384, 448, 512, 576, 640)  # of the input's longer side, where none are given


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A file that could be shipped.

    Attributes:
        format: of ``export.formats``.
        precision: of ``PRECISIONS``.
        size: (height, width) of the input.
    """

    format: str
    precision: str
    size: tuple[int, int]

    @property
    def name(self) -> str:
        return f"{self.format} {self.precision} {self.size[0]}x{self.size[1]}"

    def job(self, output: Path, calibration: Path | None) -> Job:
        """Its export, verified."""
        return Job(
            formats=(self.format,),
            output=output,
            fp16=self.precision == "float16",
            int8=self.precision == "int8",
            calibration=calibration if self.precision == "int8" else None,
            isolated=_is_isolated(self.format),
        )


def _installed(packages: Sequence[str]) -> bool:
    return all(importlib.util.find_spec(name) is not None for name in packages)


def _is_isolated(name: str) -> bool:
    """Whether the packages that write a format are in an environment of their own, made before."""
    x = find_format(name)
    return bool(x.environment and x.environment.ready and not _installed(x.packages))


def why_not(name: str) -> str:
    """Why a format cannot be measured on this machine, in words; empty if it can.

    Raises:
        ValueError: for an unknown format.
    """
    x = find_format(name)
    if not _installed([x.backend.needs()]):
        return f"{x.backend.needs()}, which runs it, is not installed"
    if x.backend.stands_in:
        return f"{x.backend.name} runs it here, whose speed says nothing of its own engine's"
    if not _installed(x.packages) and not _is_isolated(name):
        return f"{', '.join(x.packages)}, which write it, are not installed"
    return ""


def precisions_of(name: str, *, calibrated: bool) -> list[str]:
    """Those that a format can be written with; INT8 where there are pictures to calibrate with."""
    x = find_format(name)
    able = {
        "float32": True,
        "float16": "fp16" in x.options,
        "int8": "int8" in x.options and calibrated,
    }
    return [precision for precision in PRECISIONS if able[precision]]


def default_sizes(own: tuple[int, int], divisor: int) -> list[tuple[int, int]]:
    """The model's own size, and those of ``SIDES`` in its proportions, as multiples of
    ``divisor``; the smallest first."""
    longer = max(own)
    sizes = {own}
    for side in SIDES:
        height, width = (max(1, round(x * side / longer / divisor)) * divisor for x in own)
        sizes.add((height, width))
    return sorted(sizes)


def list_candidates(
    names: Sequence[str], sizes: Sequence[tuple[int, int]], *, calibrated: bool
) -> tuple[list[Candidate], dict[str, str]]:
    """All candidates, size by size, and of the formats that are left out why.

    Args:
        names: formats; all that there are if empty.
        calibrated: whether there are pictures for INT8.

    Raises:
        ValueError: for an unknown format, or if none is left.
    """
    reasons = {name: why_not(name) for name in names or formats()}
    left_out = {name: reason for name, reason in reasons.items() if reason}
    found = [
        Candidate(name, precision, size)
        for size in sizes
        for name, reason in reasons.items()
        if not reason
        for precision in precisions_of(name, calibrated=calibrated)
    ]
    if not found:
        words = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise ValueError(f"no format can be measured on this machine ({words})")
    return found, left_out
