"""Arguments of augmentations: numbers and ranges within their limits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


def require_number(
    name: str,
    value: Any,
    low: float,
    high: float = math.inf,
    *,
    above_low: bool = False,
    below_high: bool = False,
    whole: bool = False,
) -> None:
    """Raise ``ValueError``, with name and limits, unless ``low <= value <= high``.

    Args:
        above_low, below_high: the limit itself is not allowed.
        whole: only whole numbers are.
    """
    fits = (
        _is_number(value)
        and (value > low if above_low else value >= low)
        and (value < high if below_high else value <= high)
        and (not whole or isinstance(value, int))
    )
    if not fits:
        raise ValueError(f"{name} {value}; allowed: {_words(low, high, above_low, below_high)}")


def require_range(name: str, value: Any, low: float, *, above_low: bool = False) -> None:
    """Raise ``ValueError``, with name and limits, unless ``value`` is (a, b), low <= a <= b."""
    fits = (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and len(value) == 2
        and all(map(_is_number, value))
        and (value[0] > low if above_low else value[0] >= low)
        and value[0] <= value[1]
    )
    if not fits:
        found = list(value) if isinstance(value, (list, tuple)) else value
        sign = "<" if above_low else "<="
        raise ValueError(f"{name} {found}; allowed: {low:g} {sign} low <= high")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _words(low: float, high: float, above_low: bool, below_high: bool) -> str:
    if high == math.inf:
        return f"above {low:g}" if above_low else f"{low:g} or more"
    words = f"above {low:g}, at most {high:g}" if above_low else f"{low:g} to {high:g}"
    return words.replace(" to ", " to below ") if below_high else words
