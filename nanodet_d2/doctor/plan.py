"""How large the network's input and tiles should be for a data set."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from nanodet_d2.data.plan import INPUT_SIZES, Choice, best, choices
from nanodet_d2.data.splits import split_content

from .annotations import examine_annotations
from .folder import data_of_folder


def plan(
    folder: str, overrides: Sequence[str] = (), *, input_size: Sequence[int] | None = None
) -> tuple[str, dict[str, Any]]:
    """What each input size and tile size shows of the boxes of train, and a proposal.

    Args:
        folder: of a data set with all its splits.
        overrides: ``data.key=value``.
        input_size: (height, width), the only one to look at.

    Returns:
        the table as text, and as json.

    Raises:
        ValueError: for a data set that cannot be read, or without boxes.
    """
    data = data_of_folder(folder, overrides)
    split = examine_annotations(
        "train",
        *split_content(data, "train"),
        input_size=data["input_size"],
        allow_outside=bool(data.get("allow_outside")),
    )
    sizes = INPUT_SIZES if input_size is None else [(input_size[0], input_size[1])]
    found = choices(list(split.records.values()), sizes)
    proposed = best(found)
    facts = {
        "exit_code": 0,
        "folder": folder,
        "images": split.figures["images"],
        "boxes": split.figures["boxes"],
        "choices": [x.facts() for x in found],
        "proposed": proposed.facts(),
        "command": _command(folder, proposed),
    }
    return _as_text(facts, found, proposed), facts


def _command(folder: str, choice: Choice) -> str:
    height, width = choice.input_size
    words = ["nanodet-d2 train", shlex.quote(folder), f"'data.input_size=[{height},{width}]'"]
    if choice.tiles is not None:
        x = choice.tiles
        words.append(f"'dataloader.train.tiles={{size: {x.size}, overlap: {x.overlap:g}}}'")
    return " ".join(words)


def _as_text(facts: dict[str, Any], found: Sequence[Choice], proposed: Choice) -> str:
    lines = [f"{facts['folder']}: {facts['boxes']} boxes in {facts['images']} images", ""]
    shown = _worth_showing(found, proposed)
    lines += [f"{'* ' if x is proposed else '  '}{x.words()}" for x in shown]
    detect = "as it is"
    if proposed.tiles is not None:
        detect = f"--tiles {proposed.tiles.size} --overlap {proposed.tiles.overlap:g}"
    lines += ["", f"train: {facts['command']}", f"detect (predict, eval, track): {detect}"]
    return "\n".join(lines)


def _worth_showing(found: Sequence[Choice], proposed: Choice) -> list[Choice]:
    """Whole pictures, and what leaves fewer boxes small than all that is as cheap."""
    shown = [
        x
        for x in found
        if x.tiles is None
        or x is proposed
        or not any(y.cost <= x.cost and y.small_share < x.small_share for y in found)
    ]
    return sorted(shown, key=lambda x: x.cost)
