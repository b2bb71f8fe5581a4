"""The mistakes that ports make: each is a step from a picture to its boxes, done wrongly.

A table for each step names them. What comes before and after a step is done right.
"""

from __future__ import annotations

from .boxes import SCALE, SCALE_AGAIN, SUPPRESS, THRESHOLD, WRITE
from .decoding import DECODE, GATHER, READ
from .input import COLOUR, LAYOUT, RESIZE
from .step import Case, Step

__all__ = ["Case", "Step", "steps_to"]

_TO_TENSOR = (RESIZE, COLOUR, LAYOUT)
# Each of the steps after the network with the stage that it makes, if any.
_FROM_RAW = ((READ, "raw"), (DECODE, ""), (GATHER, "candidates"), (SUPPRESS, "kept"),
             (SCALE, "boxes"))  # fmt: skip


def steps_to(stage: str, right: str | None, kind: str) -> tuple[str, tuple[Step, ...]]:
    """Where to start, and the steps from there to a stage.

    Args:
        right: the last stage before that is known to be right, if any.
        kind: of the model's file.

    Returns:
        the stage of the kit to begin with, "" for the picture; and the steps.
    """
    if stage == "tensor":
        return "", _TO_TENSOR
    if kind == "end2end":
        return "boxes", (THRESHOLD, SCALE_AGAIN, WRITE)
    if stage == "raw":
        return "raw", (READ,)
    made = [name for _, name in _FROM_RAW]
    # A port may hand over the right outputs, and read them wrongly all the same.
    first = made.index(right) + 1 if right in ("candidates", "kept") else 0
    last = made.index(stage) + 1
    start = made[first - 1] if first else "raw"
    return start, (*(step for step, _ in _FROM_RAW[first:last]), WRITE)
