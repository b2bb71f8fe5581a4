"""Which convolutions quantising hurts, and which of them stay in float.

Letters: P priors, C classes, R reg_max.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence

from torch import Tensor
from tqdm import tqdm

from .network import Convolution, Network
from .ranges import Measured
from .scheme import Scheme, stored

CANDIDATES = 100  # priors of a picture with the best scores, whose outputs are compared
# Nats for a candidate that all quantised convolutions together may cost, as the sum of what each
# costs alone. 0.01 and 0.005 left more of a difference on images of train2017.
BUDGET = 0.003
FLOAT_SHARE = 0.2  # of the convolutions that may stay in float: a bad network stays a small one
SHOWN = 15  # rows of the table


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What each convolution costs when it alone is quantised, in nats for a candidate.

    Attributes:
        costs: by name, the worst first.
        in_float: names of those that stay in float.
        together: what all others cost together, measured.
        pictures: that it was measured on.
    """

    costs: dict[str, float]
    in_float: tuple[str, ...]
    together: float
    pictures: int

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2)


def explain(
    network: Network,
    weights: Mapping[str, Tensor],
    measured: Mapping[str, Measured],
    scheme: Scheme,
    images: Sequence[Tensor],
    *,
    classes: int,
) -> Explanation:
    """Rank the convolutions of a network, and choose those that stay in float.

    Args:
        network: in float.
        weights: of each convolution, quantised.
        images: inputs (1, 3, H, W).
        classes: C.
    """
    expected = [network.run(x) for x in images]

    def cost(names: set[str]) -> float:
        """Of some convolutions, quantised together."""

        def instead(conv: Convolution, x: Tensor) -> Tensor:
            if conv.name not in names:
                return conv(x)
            return quantised(conv, x, weights[conv.name], measured[conv.name], scheme)

        found = [network.run(x, instead) for x in images]
        each = [divergence(a[0], b[0], classes) for a, b in zip(expected, found)]
        return sum(each) / len(each)

    every = {name: cost({name}) for name in tqdm(measured, desc="explain", unit="layer")}
    costs = dict(sorted(every.items(), key=lambda x: -x[1]))
    in_float = choose_float(costs)
    return Explanation(
        costs=costs,
        in_float=in_float,
        together=cost(set(measured) - set(in_float)),
        pictures=len(images),
    )


def choose_float(costs: Mapping[str, float]) -> tuple[str, ...]:
    """The fewest of the worst, so that the others keep to the budget; a fifth of all at most."""
    worst = sorted(costs, key=lambda name: -costs[name])
    rest = sum(costs.values())
    chosen: list[str] = []
    for name in worst[: int(FLOAT_SHARE * len(worst))]:
        if rest <= BUDGET:
            break
        chosen.append(name)
        rest -= costs[name]
    return tuple(chosen)


def quantised(
    conv: Convolution, x: Tensor, weight: Tensor, measured: Measured, scheme: Scheme
) -> Tensor:
    """What a convolution computes when it is quantised, in float arithmetic."""
    x = stored(x, measured.input, symmetric=scheme.symmetric)
    y = dataclasses.replace(conv, weight=weight)(x)
    return stored(y, measured.output, symmetric=scheme.symmetric) if scheme.outputs else y


def divergence(expected: Tensor, found: Tensor, classes: int) -> float:
    """How much two raw outputs (P, C + 4 * (R + 1)) of a picture differ where something may be:
    Kullback-Leibler divergences in nats, of the class scores, each yes or no, plus the mean of the
    four box sides', over ``expected``'s best candidates."""
    scores = expected[:, :classes]
    best = scores.amax(dim=1).topk(min(CANDIDATES, len(scores))).indices
    p, q = (x[best, :classes].clamp(1e-6, 1 - 1e-6) for x in (expected, found))
    of_classes = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum(dim=1)
    a, b = (x[best, classes:].unflatten(1, (4, -1)).log_softmax(dim=2) for x in (expected, found))
    of_sides = (a.exp() * (a - b)).sum(dim=2)
    return float((of_classes + of_sides.mean(dim=1)).mean())


def in_words(x: Explanation) -> str:
    """A table of the worst convolutions, for people."""
    whole = sum(x.costs.values()) or 1.0
    width = max(map(len, x.costs), default=0)
    lines = [f"what quantising one convolution alone costs, on {x.pictures} pictures:"]
    for name, cost in list(x.costs.items())[:SHOWN]:
        kept = "  stays in float" if name in x.in_float else ""
        lines.append(f"  {name:<{width}}  {cost:.5f}  {100 * cost / whole:4.1f} %{kept}")
    left = len(x.costs) - min(SHOWN, len(x.costs))
    lines.append(f"  and {left} more; {len(x.in_float)} stay in float, the others cost "
                 f"{x.together:.5f} together (nats for each of a picture's best "
                 f"{CANDIDATES} candidates)")  # fmt: skip
    return "\n".join(lines)
