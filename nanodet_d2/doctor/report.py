"""The doctor's findings as text, as json and as pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from nanodet_d2.data.files import Problems

from .annotations import Split

_WIDTH = 40  # of a bar, in characters
_CLASSES = 20  # rows of the text; the json has all
_PLOTTED_CLASSES = 60


def problems_as_json(problems: Problems) -> list[dict[str, Any]]:
    return [{"what": what, "count": n, "first": first} for what, n, first in problems]


def split_as_json(split: Split) -> dict[str, Any]:
    return {
        "source": split.source,
        "problems": problems_as_json(split.problems),
        "notes": split.notes,
        "missing_images": sorted(split.missing),
        "broken_images": split.broken,
        **split.figures,
    }


def split_as_text(split: Split) -> str:
    """A split's findings, for a terminal."""
    figures = split.figures
    height, width = figures["input_size"]
    lines = [
        f"{split.name}: {split.source}",
        f"  {figures['images']} images, {figures['images_without_boxes']} of them without boxes",
        f"  {figures['boxes']} boxes of {len(split.classes)} categories; crowd share "
        f"{100 * figures['crowd_share']:.1f} %",
        *findings_as_text(split.problems, split.notes),
        "  boxes per category",
        *_bars(most_and_least({k: v["boxes"] for k, v in figures["classes"].items()})),
        f"  box size (root of the area) in pixels of the network's input, {height} x {width}",
        *_bars(figures["sizes"]),
        "  width / height",
        *_bars(figures["aspects"]),
    ]
    return "\n".join(lines)


def findings_as_text(problems: Iterable[tuple[str, int, str]], notes: Sequence[str]) -> list[str]:
    return [
        *(f"  PROBLEM  {n} {what} (first: {first})" for what, n, first in problems),
        *(f"  note     {note}" for note in notes),
    ]


def most_and_least(counts: Mapping[str, int]) -> dict[str, int | None]:
    """By descending count; the middle of a long list becomes one row, of None."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    if len(ordered) <= _CLASSES:
        return dict(ordered)
    half = _CLASSES // 2
    left_out = {f"… {len(ordered) - 2 * half} more": None}
    return {**dict(ordered[:half]), **left_out, **dict(ordered[-half:])}


def _bars(counts: Mapping[str, int | None]) -> list[str]:
    top = max([n for n in counts.values() if n] or [1])
    column = min(max(map(len, counts), default=0), 30)
    return [
        f"    {name[:30]:{column}}"
        + ("" if n is None else f" {n:8d} {'#' * round(_WIDTH * n / top)}".rstrip())
        for name, n in counts.items()
    ]


def draw_split(split: Split, path: Path, strides: Sequence[int]) -> None:
    """One picture: boxes per category, sizes beside the strides, aspect ratios."""
    figure = Figure(figsize=(12, 8), layout="constrained")
    grid = figure.add_gridspec(2, 2)
    bars, sizes, aspects = (figure.add_subplot(x) for x in (grid[0, :], grid[1, 0], grid[1, 1]))
    counts = sorted(((v["boxes"], k) for k, v in split.figures["classes"].items()), reverse=True)
    counts = counts[:_PLOTTED_CLASSES]
    bars.bar(range(len(counts)), [n for n, _ in counts])
    names = [name for _, name in counts]
    # Of these labels alone, for a category may be called "$a_b$": the log axes need formulas.
    bars.set_xticks(range(len(names)), names, rotation=90, fontsize=7, parse_math=False)
    bars.set_ylabel("boxes")
    bars.set_yscale("symlog")
    bars.set_title(f"{split.name}: {split.figures['boxes']} boxes, the most frequent categories")
    for axes, values, limits, label in (
        (sizes, split.sizes, strides, "root of a box's area, pixels of the network's input"),
        (aspects, split.aspects, [1.0], "width / height"),
    ):
        if len(values):
            low, high = max(values.min(), 1e-3), max(values.max(), 2e-3)
            axes.hist(values, np.geomspace(low * 0.99, high * 1.01, 60).tolist())
        for limit in limits:
            axes.axvline(limit, color="black", linestyle="--", linewidth=1)
        axes.set_xscale("log")
        axes.set_xlabel(label)
        axes.set_ylabel("boxes")
    sizes.set_title(f"dashed: the strides {', '.join(map(str, strides))}")
    figure.savefig(path, dpi=100)
