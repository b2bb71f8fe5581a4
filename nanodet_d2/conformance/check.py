"""Which stage of a port differs first, and which known mistake looks like that."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from .compare import compare
from .kit import Kit
from .recognise import Recognised, Seen, recognise
from .result import Stages
from .stages import stages_of


@dataclasses.dataclass(frozen=True)
class Report:
    """What the check found.

    Attributes:
        same: whether all that was given is right.
        checked: the stages that are right, each with its largest difference.
        stage: the first that differs; "" if none does.
        finding: what it looks like, e.g. "input: channels swapped"; the stage's name if nothing
            known does.
        sentence: the same with figures.
        also: other mistakes that look the same.
        pictures: what differs, by picture.
    """

    same: bool
    checked: dict[str, float]
    stage: str = ""
    finding: str = ""
    sentence: str = ""
    also: tuple[str, ...] = ()
    pictures: dict[str, str] = dataclasses.field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def text(self) -> str:
        lines = [f"{stage}: same (largest difference {x:.2g})" for stage, x in self.checked.items()]
        return "\n".join([*lines, self.sentence] if self.sentence else lines)


def check(kit: Kit, result: Mapping[str, Stages]) -> Report:
    """Compare what a port has with a kit.

    Args:
        result: by picture; see :func:`read_result`.
    """
    x = kit.metadata
    checked: dict[str, float] = {}
    for stage in stages_of(x):
        seen = []
        for picture in kit.pictures:
            found = result[picture.name].get(stage)
            if found is not None:
                size = picture.image.shape[:2]
                difference = compare(stage, picture.stages[stage], found, x, size)
                seen.append(Seen(picture, found, difference))
        if not all(one.difference.same for one in seen):
            recognised, tried = recognise(x, stage, next(reversed(checked), None), seen)
            return _report(stage, seen, recognised, tried, checked)
        if seen:
            checked[stage] = max(one.difference.largest for one in seen)
    return Report(same=True, checked=checked)


def _report(
    stage: str,
    seen: Sequence[Seen],
    recognised: Sequence[Recognised],
    tried: int,
    checked: dict[str, float],
) -> Report:
    """The report of a stage that differs."""
    worst = min(seen, key=lambda one: one.difference.share)
    figures = f"{stage} of {worst.picture.name} differs: {worst.difference.where}"
    also = tuple(one.words for one in recognised[1:])
    if recognised:
        finding = recognised[0].words
        left = f"{recognised[0].left:.2g}" + (" grey levels" if stage == "tensor" else "")
        same = "the same" if recognised[0].exact else "nearly the same"
        sentence = f"{finding} ({figures}; this mistake made on purpose gives {same}, to {left})"
    else:
        finding = stage
        sentence = f"{figures}; none of {tried} known mistakes gives this{_advice(stage, checked)}"
    if also:
        sentence += f"; it could also be: {'; '.join(also)}"
    different = {one.picture.name: one.difference.where for one in seen if not one.difference.same}
    return Report(False, checked, stage, finding, sentence, also, different)


def _advice(stage: str, checked: Mapping[str, float]) -> str:
    """What helps next: stages to hand over as well, where they are not known to be right."""
    if stage == "raw" and "tensor" in checked:
        return " (the input is right: another file, or an engine that computes otherwise)"
    before = {"raw": ("tensor",), "candidates": ("raw",), "kept": ("candidates",),
              "boxes": ("raw", "candidates", "kept")}  # fmt: skip
    missing = [name for name in before.get(stage, ()) if name not in checked]
    return f" (with {' and '.join(missing)} given, more can be said)" if missing else ""
