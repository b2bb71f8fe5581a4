"""Putting weights into a model, and saying by name what went where."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from .card import read_card
from .class_names import match_classes, names_of_rows, starting_rows
from .reading import read_weights

logger = logging.getLogger(__name__)

# Of the checkpoint's tensors; with fewer that fit, it belongs to another architecture.
MIN_FITTING_SHARE = 0.25
AUX_PARTS = ("aux_neck.", "aux_head.")
_COUNTERS = "num_batches_tracked"


class Model(Protocol):
    """What is used of a ``NanoDetPlus``."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> Any: ...

    def class_rows(self) -> dict[str, slice]: ...


@dataclasses.dataclass
class LoadReport:
    """Names of tensors by what became of them."""

    loaded: list[str] = dataclasses.field(default_factory=list)
    reset_classes: list[str] = dataclasses.field(default_factory=list)
    # The checkpoint's classes are the model's, in the same order, as far as their names tell.
    same_classes: bool = True
    missing: list[str] = dataclasses.field(default_factory=list)
    unexpected: list[str] = dataclasses.field(default_factory=list)
    other_shape: list[str] = dataclasses.field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every weight that inference uses came from the checkpoint."""
        missing = [name for name in self.missing if not name.startswith(AUX_PARTS)]
        return not (missing or self.other_shape or self.reset_classes)


def load_weights(
    model: Model,
    source: str,
    *,
    require_all: bool = False,
    class_names: Sequence[str] | None = None,
) -> LoadReport:
    """Load a checkpoint's weights into ``model`` and log the outcome.

    Of other classes, those whose names the checkpoint knows take over its ``class_rows``, and new
    ones start from the rows of others. The box part, the neck and the backbone are loaded.

    Args:
        model: a ``NanoDetPlus``.
        source: path or URL of any file that ``read_weights`` knows.
        require_all: refuse anything that leaves a weight of inference at its random start.
        class_names: of the model. Without them, only the number of classes is compared.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is no checkpoint, or one of another architecture.

    Example:
        >>> from nanodet_d2 import zoo
        >>> from nanodet_d2.checkpoint import load_weights
        >>> load_weights(zoo.get("nanodet-plus-m-416"), "nanodet-plus-m_416.ckpt")
    """
    weights = read_weights(source)
    state = model.state_dict()
    class_rows = model.class_rows()
    known = _known_classes(source, weights.state_dict, state, class_rows) if class_names else None
    match = match_classes(class_names or (), known)
    report = _compare(weights.state_dict, state, class_rows, same_classes=match.same)
    _refuse_misfit(report, weights.state_dict, source, require_all=require_all)

    fitting = {name: weights.state_dict[name] for name in report.loaded}
    for name in report.reset_classes:
        rows = class_rows[name]
        fitting[name] = _reset_rows(weights.state_dict[name], state[name], rows, match.rows)
    model.load_state_dict(fitting, strict=False)
    _log(report, list(state), source, weights.origin)
    if report.reset_classes:
        what = f"other classes ({match})" if match.known else "another number of classes"
        logger.warning(
            "The checkpoint has %s. New ones start from the rows of others, the box part is kept "
            "where there is one, in: %s",
            what,
            ", ".join(report.reset_classes),
        )
    return report


def _known_classes(
    source: str,
    saved: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    class_rows: Mapping[str, slice],
) -> Sequence[str] | None:
    """Names of the checkpoint's classes; None if they are not known."""
    name = next((name for name in class_rows if name in saved), None)
    if name is None:
        return None
    rows = class_rows[name]
    count = len(saved[name]) - (len(state[name]) - (rows.stop - rows.start))
    card = read_card(source)
    return names_of_rows(card.class_names if card else None, count)


def _compare(
    saved: dict[str, Tensor],
    state: dict[str, Tensor],
    class_rows: Mapping[str, slice],
    *,
    same_classes: bool,
) -> LoadReport:
    report = LoadReport(
        same_classes=same_classes, missing=[name for name in state if name not in saved]
    )
    for name, tensor in saved.items():
        if name not in state:
            report.unexpected.append(name)
        elif tensor.shape == state[name].shape and (same_classes or name not in class_rows):
            report.loaded.append(name)
        elif name in class_rows and tensor.shape[1:] == state[name].shape[1:]:
            report.reset_classes.append(name)
            report.same_classes = False
        else:
            shapes = f"{tuple(tensor.shape)}, the model has {tuple(state[name].shape)}"
            report.other_shape.append(f"{name}: {shapes}")
    return report


def _refuse_misfit(
    report: LoadReport, saved: dict[str, Tensor], source: str, *, require_all: bool
) -> None:
    fitting = [name for name in report.loaded if not name.endswith(_COUNTERS)]
    total = [name for name in saved if not name.endswith(_COUNTERS)]
    misfit = len(fitting) < MIN_FITTING_SHARE * len(total)
    if misfit or (require_all and not report.complete):
        raise ValueError(
            f"checkpoint {source} does not fit this model: {len(fitting)} of its {len(total)} "
            f"tensors do. Of another shape: {_some(report.other_shape + report.reset_classes)}; "
            f"unknown to the model: {_some(report.unexpected)}; not in the file: "
            f"{_some(report.missing)}. Use the config it was trained with."
        )


def _reset_rows(saved: Tensor, current: Tensor, classes: slice, taken: Mapping[int, int]) -> Tensor:
    """``current`` with what ``saved`` has for it.

    These are the rows beside those of the classes, and rows that the classes start from.

    Args:
        taken: index of a class in ``current`` -> that in ``saved``, whose row it takes over.
    """
    before, after = classes.start, len(current) - classes.stop
    known = len(saved) - before - after
    mixed = current.clone()
    if known <= 0:
        return mixed
    mixed[:before] = saved[:before].to(mixed)
    mixed[classes.stop :] = saved[len(saved) - after :].to(mixed)
    for new, old in starting_rows(classes.stop - before, known, taken).items():
        mixed[before + new] = saved[[before + x for x in old]].to(mixed).mean(dim=0)
    return mixed


def _log(report: LoadReport, state: Sequence[str], source: str, origin: str) -> None:
    logger.info(
        "Loaded %d tensors from %s (%s): %s",
        len(report.loaded),
        source,
        origin,
        ", ".join(collapse_names(report.loaded, state)),
    )
    for what, names, universe in (
        ("Not in the checkpoint, left at their start", report.missing, state),
        ("In the checkpoint, unknown to the model", report.unexpected, report.unexpected),
        ("Of another shape, left at their start", report.other_shape, report.other_shape),
    ):
        if names:
            logger.warning(
                "%s (%d): %s", what, len(names), ", ".join(collapse_names(names, universe))
            )


def collapse_names(names: Sequence[str], universe: Sequence[str], prefix: str = "") -> list[str]:
    """Shorten dotted names: a module whose names are all among them is named once, as ``module.*``.

    Args:
        names: the names to show.
        universe: all names there are.
        prefix: of the modules to look into, with its dot.
    """
    chosen = {name for name in names if name.startswith(prefix)}
    children: dict[str, list[str]] = {}
    for name in universe:
        if name.startswith(prefix):
            head, dot, _ = name[len(prefix) :].partition(".")
            children.setdefault(prefix + head + dot, []).append(name)
    shown: list[str] = []
    for child, members in children.items():
        if not child.endswith("."):
            shown += [child] if child in chosen else []
        elif chosen.issuperset(members):
            shown.append(child + "*")
        elif chosen.intersection(members):
            shown += collapse_names(names, universe, child)
    return shown


def _some(names: Sequence[str], count: int = 4) -> str:
    shown = ", ".join(names[:count]) or "none"
    return shown + (f", … ({len(names)} in all)" if len(names) > count else "")
