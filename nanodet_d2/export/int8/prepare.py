"""From a network and pictures to what an engine's file is written from."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram
from tqdm import tqdm

from ..calibration import spread
from .equalise import equalise
from .explain import Explanation, explain
from .network import Network
from .ranges import Measured, input_peaks, measure
from .rounding import round_weights
from .scheme import Range, Scheme, rounded

logger = logging.getLogger(__name__)

EXPLAINED = 4  # pictures that convolutions are ranked on


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a network's convolutions are quantised, by name; those that it lacks stay in float.

    Attributes:
        inputs: ranges of their inputs.
        outputs: of their outputs, before an activation.
    """

    scheme: Scheme
    inputs: Mapping[str, Range]
    outputs: Mapping[str, Range]


class Prepared:
    """A network whose channels were equalised, and what was measured of it.

    Args:
        network: in float.
        weights: of each convolution that may be quantised, on their grid.
        measured: of the same.
        images: inputs (1, 3, H, W) that convolutions are ranked on.
        classes: number of them.
    """

    def __init__(
        self,
        network: Network,
        weights: Mapping[str, Tensor],
        measured: Mapping[str, Measured],
        images: Sequence[Tensor],
        *,
        classes: int,
    ):
        self._network, self._weights, self._measured = network, weights, measured
        self._images, self._classes = images, classes
        self._explanations: dict[Scheme, Explanation] = {}

    def explanation(self, scheme: Scheme) -> Explanation:
        """What an engine's convolutions cost."""
        if scheme not in self._explanations:
            able = {
                name: x
                for name, x in self._measured.items()
                if scheme.depthwise or self._network.convolutions[name].groups == 1
            }
            found = explain(
                self._network,
                self._weights,
                able,
                scheme,
                self._images,
                classes=self._classes,
            )
            logger.info(
                "INT8: of %d convolutions stay in float: %s",
                len(found.costs),
                ", ".join(found.in_float) or "none",
            )
            self._explanations[scheme] = found
        return self._explanations[scheme]

    def plan(self, scheme: Scheme) -> Plan:
        found = self.explanation(scheme)
        names = [name for name in self._measured if name in found.costs.keys() - found.in_float]
        return Plan(
            scheme=scheme,
            inputs={name: self._measured[name].input for name in names},
            outputs={name: self._measured[name].output for name in names},
        )

    def state(self, plan: Plan) -> dict[str, Tensor]:
        """Weights and biases of all convolutions, as tensors of a module's state: on their grid
        where they are to be quantised."""
        found = {}
        for name, conv in self._network.convolutions.items():
            weight = self._weights[name] if name in plan.inputs else conv.weight
            found[f"{name}.weight"] = weight
            if conv.bias is not None:
                found[f"{name}.bias"] = conv.bias
        return found


def calibrate(program: ExportedProgram, samples: Sequence[np.ndarray], *, classes: int) -> Prepared:
    """Equalise, measure and round.

    Args:
        program: the raw network, of one image.
        samples: inputs (1, 3, H, W) of it.
        classes: number of them.
    """
    network = Network(program)
    equalise(network, input_peaks(network, _images(samples, "equalise")))
    measured = measure(network, _images(samples, "calibrate"))
    weights = {}
    for name in tqdm(measured, desc="round", unit="layer"):
        weight, moment = network.convolutions[name].weight, measured[name].moment
        weights[name] = rounded(weight) if moment is None else round_weights(weight, moment)
    images = [torch.from_numpy(x) for x in spread(samples, EXPLAINED)]
    return Prepared(network, weights, measured, images, classes=classes)


def _images(samples: Sequence[np.ndarray], purpose: str) -> Iterator[Tensor]:
    for x in tqdm(samples, desc=purpose, unit="image"):
        yield torch.from_numpy(x)
