"""Reads the golden cases in ``cases``, whose README says what they hold."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nanodet_d2.checkpoint import convert_reference_state_dict
from tests.parity import generated

CASES = Path(__file__).parent / "cases"
RELATIVE = 1e-4


class GoldenCase:
    """Figures of the reference, and the weights and inputs they belong to.

    Args:
        name: of the case's files, without suffix.

    Attributes:
        facts: the json file.
        arrays: the npz file.
        images: (N, 3, H, W), normalised.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.facts: dict = json.loads((CASES / f"{name}.json").read_text(encoding="utf-8"))
        with np.load(CASES / f"{name}.npz") as file:
            self.arrays: dict[str, np.ndarray] = dict(file)
        self.images = generated.images(name, self.facts["input"])

    def state_dict(self, prefix: str = "") -> dict[str, Tensor]:
        """The weights under this project's names; ``prefix`` goes before the reference's."""
        state = generated.state_dict(self.facts["state_dict"])
        return convert_reference_state_dict({prefix + k: v for k, v in state.items()})

    def inputs(self) -> list[dict]:
        """A training batch, as the mapper makes it."""
        height, width = self.facts["input"][2:]
        return [
            {
                "image": image,
                "instances": generated.ground_truth(self.name, i, count, height, width),
            }
            for i, (image, count) in enumerate(zip(self.images, self.facts["ngts"]))
        ]

    def assert_close(self, name: str, actual: Tensor) -> None:
        """All values are within 1e-4 of the golden array's largest one.

        What rounding took from the stored values is taken from the tolerance, too, so that nothing
        passes that would fail against the unrounded ones. Of some features every 4th or 8th channel
        is there, of one head every 4th prior.
        """
        stored, step = self.arrays[name], float(self.arrays.get(f"{name}.step", 0.0))
        golden = stored * step if step else stored.astype(np.float64)
        found = actual.detach().to(torch.float64).numpy()
        if found.shape != golden.shape:
            found = found[:, :: found.shape[1] // golden.shape[1]]
        assert found.shape == golden.shape, name
        error, bar = np.abs(found - golden).max(), RELATIVE * np.abs(golden).max() - step / 2
        assert error <= bar, f"{name} is off by {error:.3g}, allowed are {bar:.3g}"
