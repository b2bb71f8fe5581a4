"""The mistakes that ports make: each is a step from a picture to its boxes, done wrongly.

A table for each step names them. What comes before and after a step is done right.
"""

from __future__ import annotations

from nanodet_d2.runtime.metadata import ExportMetadata

from .boxes import SCALE, SUPPRESS, THRESHOLD, WRITE, again
from .decoding import DECODE, GATHER, READ
from .input import COLOUR, LAYOUT, RESIZE
from .step import Case, Step

__all__ = ["Case", "Step", "steps_to"]

# Each of the steps after the network with the stage that it makes, if any; the last one depends on
# where the picture was placed.
_FROM_RAW = ((READ, "raw"), (DECODE, ""), (GATHER, "candidates"), (SUPPRESS, "kept"))


def steps_to(stage: str, right: str | None, x: ExportMetadata) -> tuple[str, tuple[Step, ...]]:
    """Where to start, and the steps from there to a stage.

    Args:
        right: the last stage before that is known to be right, if any.
        x: the contract.

    Returns:
        the stage of the kit to begin with, "" for the picture; and the steps.
    """
    if stage == "tensor":
        return "", (RESIZE[x.input.resize], COLOUR, LAYOUT)
    scale = SCALE[x.input.resize]
    if x.kind == "end2end":
        return "boxes", (THRESHOLD, again(scale), WRITE)
    if stage == "raw":
        return "raw", (READ,)
    from_raw = (*_FROM_RAW, (scale, "boxes"))
    made = [name for _, name in from_raw]
    # A port may hand over the right outputs, and read them wrongly all the same.
    first = made.index(right) + 1 if right in ("candidates", "kept") else 0
    last = made.index(stage) + 1
    start = made[first - 1] if first else "raw"
    return start, (*(step for step, _ in from_raw[first:last]), WRITE)
