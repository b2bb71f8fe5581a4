"""Which known mistakes give what a port has: each is made on purpose, from what the kit has."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from nanodet_d2.runtime.metadata import ExportMetadata

from .compare import Difference, compare
from .kit import Picture
from .mistakes import Case, Step, steps_to
from .stages import ROWS

# A mistake in a tensor or in outputs is recognised if it gives nearly all of the values that were
# found. Where none does, one is named that leaves little of the difference: a port may have made it
# in a way of its own, as pictures can be letterboxed in many.
SHARE = 0.99
EXPLAINED = 0.1  # of the mean difference may be left
MOST_TOGETHER = 2  # mistakes on the way to the tensor, between whose steps nothing is handed over
SOME = slice(None, None, 997)  # of a tensor's values, from all rows, columns and channels: a prime


@dataclasses.dataclass(frozen=True)
class Seen:
    """What a port has of one stage of a picture, and how it differs."""

    picture: Picture
    found: np.ndarray
    difference: Difference


@dataclasses.dataclass(frozen=True)
class Recognised:
    """Mistakes that give what was found.

    Attributes:
        words: what they are.
        together: how many they are.
        exact: whether they give the same within the tolerances.
        left: mean difference that remains.
    """

    words: str
    together: int
    exact: bool
    left: float


class _Trial:
    """One picture, on which mistakes are tried.

    Args:
        seen: of it.
        case: what steps may ask for.
        value: what the steps start with.
        steps: to the stage that is compared.
    """

    def __init__(self, seen: Seen, case: Case, value: np.ndarray, steps: Sequence[Step]):
        self.seen, self.case, self.value, self.steps = seen, case, value, steps
        self.dense = case.stage not in ROWS
        self.unit = 1.0
        if case.stage == "tensor":  # its grey levels may be 0..1, or 0..255
            self.unit = float(seen.found.std() / max(seen.picture.stages["tensor"].std(), 1e-9))
        self._done: dict[tuple[str | None, ...], np.ndarray] = {}

    def left(self, chosen: Mapping[int, str]) -> tuple[bool, float] | None:
        """Whether mistakes give what was found exactly, and the mean difference that is left; None
        if they give something else.

        Args:
            chosen: by the number of their step.
        """
        simulated = self._simulate(chosen)
        if self.case.stage == "tensor" and not self._is_near(simulated):
            return None
        case, found = self.case, self.seen.found
        x = compare(case.stage, simulated, found, case.x, case.size, unit=self.unit)
        if x.same:
            return True, x.mean
        if not self.dense or x.mean > EXPLAINED * self.seen.difference.mean:
            return None
        return x.share >= SHARE, x.mean

    def _simulate(self, chosen: Mapping[int, str]) -> np.ndarray:
        """The steps, some of them done wrongly. What others begin with, too, is kept."""
        value = self.value
        for i, step in enumerate(self.steps):
            way = tuple(chosen.get(j) for j in range(i + 1))
            if way in self._done:
                value = self._done[way]
                continue
            value = (step.wrong[chosen[i]] if i in chosen else step.right)(value, self.case)
            if not any(way) or (i == 0 and self.case.stage == "tensor"):
                self._done[way] = value
        return value

    def _is_near(self, simulated: np.ndarray) -> bool:
        """Whether a tensor is near what was found, in some of its values. Most are not."""
        expected, found = self.seen.picture.stages["tensor"].ravel()[SOME], self.seen.found.ravel()
        gap = np.abs(simulated.ravel()[SOME] - found[SOME]).mean()
        return bool(gap <= max(0.5 * np.abs(expected - found[SOME]).mean(), 1e-3))


def recognise(
    x: ExportMetadata, stage: str, right: str | None, seen: Sequence[Seen]
) -> tuple[list[Recognised], int]:
    """The mistakes that give what was found in all pictures, the likeliest first, and how many were
    tried.

    Args:
        right: the last stage before that is known to be right, if any.
    """
    start, steps = steps_to(stage, right, x)
    rows = [one.found for one in seen] if stage in ROWS else []
    lowest = min((float(found[:, 4].min()) for found in rows if len(found)), default=None)
    most = max(map(len, rows), default=0)
    trials = []
    for one in seen:
        case = Case(x, one.picture.image.shape[:2], stage, lowest, most)
        value = one.picture.stages[start] if start else one.picture.image
        trials.append(_Trial(one, case, value, steps))
    recognised: list[Recognised] = []
    tried = 0
    for together in range(1, (MOST_TOGETHER if stage == "tensor" else 1) + 1):
        for words, chosen in _choices(steps, together):
            tried += 1
            left = _left_in_all(trials, chosen)
            if left is not None:
                words = words.format(x=x, lowest=lowest, most=most)
                recognised.append(Recognised(words, together, *left))
        if any(one.exact for one in recognised):
            break
    return _closest(recognised), tried


def _choices(steps: Sequence[Step], together: int) -> Iterator[tuple[str, dict[int, str]]]:
    """So many mistakes, each of another step, with words for all of them."""
    for places in itertools.combinations(range(len(steps)), together):
        for names in itertools.product(*(steps[i].wrong for i in places)):
            yield "; and ".join(names), dict(zip(places, names))


def _left_in_all(trials: Sequence[_Trial], chosen: Mapping[int, str]) -> tuple[bool, float] | None:
    left = []
    for trial in trials:
        one = trial.left(chosen)
        if one is None:
            return None
        left.append(one)
    return all(exact for exact, _ in left), float(np.mean([mean for _, mean in left]))


def _closest(recognised: Sequence[Recognised]) -> list[Recognised]:
    """Those that are as good as the best, in the order of the tables. The fewer the better."""
    if not recognised:
        return []
    best = min(recognised, key=lambda one: (not one.exact, one.together, one.left))
    return [
        one
        for one in recognised
        if (one.exact, one.together) == (best.exact, best.together)
        and one.left <= max(2 * best.left, 1e-6)
    ]
