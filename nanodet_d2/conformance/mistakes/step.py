"""A step of the way from a picture to its boxes, and the ways to do it wrongly."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from nanodet_d2.runtime.metadata import ExportMetadata
from nanodet_d2.runtime.preprocess import Fit, fit_of

from ..stages import placement


@dataclasses.dataclass(frozen=True)
class Case:
    """What a step may ask for besides the array that it works on.

    Attributes:
        x: the contract.
        size: (height, width) of the picture.
        stage: that is compared in the end.
        lowest: score of the port's rows in all pictures; None without any.
        most: number of the port's rows in a picture.
    """

    x: ExportMetadata
    size: Sequence[int]
    stage: str
    lowest: float | None = None
    most: int = 0

    @property
    def fit(self) -> Fit:
        """Where a picture that keeps its proportions lies in the input."""
        return fit_of(self.size[0], self.size[1], self.x.input.height, self.x.input.width)

    @property
    def scale(self) -> tuple[float, float]:
        """Of x and y, from the picture to the input."""
        return placement(self.x, self.size)[0]

    @property
    def shift(self) -> tuple[float, float]:
        """Of x and y, after that."""
        return placement(self.x, self.size)[1]


Function = Callable[[np.ndarray, Case], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Step:
    """An array to the next one.

    Attributes:
        right: how it is done.
        wrong: by what is wrong, in words.
    """

    right: Function
    wrong: Mapping[str, Function]
