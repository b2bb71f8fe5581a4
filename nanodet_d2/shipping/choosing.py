"""Which file to ship, of those that were measured: pure functions."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence

# Of files that differ by less in their bytes the one with the best AP is shipped: the weights of a
# precision are the same at each input size, and a few bytes of names are no reason to choose by.
EQUAL_BYTES = 0.02
SURE = 2.0  # standard errors on each side of a mean, beyond which it is with a probability of 5 %


@dataclasses.dataclass(frozen=True)
class Measured:
    """What was measured of a file.

    Attributes:
        ms: from an image to its boxes, median.
        noise_ms: that the median may be off by.
        ap: in percent.
        bytes: of the model and its weights.
        peer: whether it is another project's model, for comparison alone.
    """

    name: str
    ms: float
    noise_ms: float
    ap: float
    bytes: int
    peer: bool = False


@dataclasses.dataclass(frozen=True)
class Budget:
    """What may be spent.

    Attributes:
        max_ms: from an image to its boxes; any if None.
        max_ap_drop: below ``reference_ap``.
        reference_ap: of the model in PyTorch, in float32 and at its own input size.
    """

    max_ms: float | None
    max_ap_drop: float
    reference_ap: float

    def drop(self, x: Measured) -> float:
        return self.reference_ap - x.ap

    def is_fast(self, x: Measured) -> bool:
        return self.max_ms is None or x.ms <= self.max_ms

    def is_good(self, x: Measured) -> bool:
        return self.drop(x) <= self.max_ap_drop


def of_rounds(rounds: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Median of a file's times, and by how much it may be off, of rounds of times.

    The median of each round is one reading, and the median of these the result: what disturbs the
    machine for a while spoils a round, not a call here and there. Off by ``SURE`` standard errors
    of the readings' mean; infinite for a single one.
    """
    readings = [statistics.median(some) for some in rounds]
    middle = statistics.median(readings)
    if len(readings) < 2:
        return middle, float("inf")
    return middle, SURE * statistics.stdev(readings) / len(readings) ** 0.5


def front(measured: Sequence[Measured]) -> list[Measured]:
    """Those that no other one beats in both time and AP, the fastest first."""
    best: list[Measured] = []
    for x in sorted(measured, key=lambda x: (x.ms, -x.ap, x.bytes)):
        if not best or x.ap > best[-1].ap:
            best.append(x)
    return best


def affordable(measured: Sequence[Measured], budget: Budget) -> list[Measured]:
    """Those that meet the budget, in the order in which they are shipped: the smallest first, of
    such as are equally small, within ``EQUAL_BYTES``, the best AP, then the fastest."""
    left = sorted(
        (x for x in measured if budget.is_fast(x) and budget.is_good(x)), key=lambda x: x.bytes
    )
    ordered: list[Measured] = []
    while left:
        limit = left[0].bytes * (1 + EQUAL_BYTES)
        equal = [x for x in left if x.bytes <= limit]
        ordered += sorted(equal, key=lambda x: (-x.ap, x.ms))
        left = left[len(equal) :]
    return ordered


def shortfall(measured: Sequence[Measured], budget: Budget) -> str:
    """Where none meets the budget: which bound fails, and by how much, in words."""
    good = [x for x in measured if budget.is_good(x)]
    fast = [x for x in measured if budget.is_fast(x)]
    words = []
    if good:
        x = min(good, key=lambda x: x.ms)
        assert budget.max_ms is not None and x.ms > budget.max_ms
        words.append(
            f"the fastest that loses at most {budget.max_ap_drop:g} AP, {x.name}, takes "
            f"{x.ms:.2f} ms, {x.ms - budget.max_ms:.2f} too many"
        )
    else:
        x = max(measured, key=lambda x: x.ap)
        words.append(
            f"none loses at most {budget.max_ap_drop:g} AP: the best, {x.name}, has "
            f"{x.ap:.2f}, {budget.drop(x) - budget.max_ap_drop:.2f} too few"
        )
    if budget.max_ms is not None and fast:
        x = max(fast, key=lambda x: x.ap)
        words.append(
            f"the best within {budget.max_ms:g} ms, {x.name}, loses {budget.drop(x):.2f} AP, "
            f"{budget.drop(x) - budget.max_ap_drop:.2f} too many"
        )
    elif budget.max_ms is not None:
        x = min(measured, key=lambda x: x.ms)
        words.append(
            f"none takes at most {budget.max_ms:g} ms: the fastest, {x.name}, takes {x.ms:.2f}, "
            f"{x.ms - budget.max_ms:.2f} too many"
        )
    return "; ".join(words)


def doubts(x: Measured, budget: Budget, noise_ap: float, pictures: int) -> list[str]:
    """Bounds that are met by less than the noise, in words.

    Args:
        noise_ap: that the loss of AP may be off by.
        pictures: that AP was measured on.
    """
    found = []
    if budget.max_ms is not None and budget.max_ms - x.ms < x.noise_ms:
        found.append(
            f"{budget.max_ms:g} ms are kept only within the noise: {x.ms:.2f} ± {x.noise_ms:.2f}"
        )
    if budget.max_ap_drop - budget.drop(x) < noise_ap:
        found.append(
            f"a loss of {budget.max_ap_drop:g} AP is kept only within the noise of {pictures} "
            f"pictures: {budget.drop(x):.2f} ± {noise_ap:.2f}"
        )
    return found
