"""Measuring all models in turns, and writing what was measured."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nanodet_d2.data.shapes import draw_picture

from .measure import measure_all, score_all
from .models import Model, usable
from .report import machine, plot, table

logger = logging.getLogger(__name__)


def benchmark(
    models: Sequence[Model],
    output: Path,
    *,
    image: np.ndarray | None = None,
    threads: Sequence[int] = (1, 2),
    rounds: int = 10,
    data: tuple[Path, Path] | None = None,
) -> tuple[str, dict[str, Any]]:
    """Measure, and write ``runtimes.json``, ``.md`` and ``.png``, even if it is interrupted.

    Args:
        output: folder to write.
        image: (H, W, 3) uint8 BGR to measure with; a drawn scene if None.
        threads: numbers of threads.
        rounds: of blocks of calls for each model.
        data: annotations in COCO format and the folder of their pictures, for the AP.

    Returns:
        the table, in Markdown, and what ``runtimes.json`` holds.

    Raises:
        ValueError: if two models have one name, or none can be used.
    """
    _refuse_equal_names(models)
    image = drawn_scene() if image is None else image
    skipped: list[dict[str, str]] = []
    kept = usable(models, image, skipped)
    if not kept:
        raise ValueError(f"none of the {len(models)} files can be used")

    facts = {"machine": machine(), "image": list(image.shape[:2]), "rounds": rounds,
             "models": [x.facts for x in kept], "skipped": skipped}  # fmt: skip

    def save() -> None:
        output.mkdir(parents=True, exist_ok=True)
        (output / "runtimes.json").write_text(json.dumps(facts, indent=1))

    try:
        measure_all(kept, [image], threads, rounds)
        save()  # a runtime that crashes takes the process with it
        if data is not None:
            score_all(kept, *data, threads[-1])
    finally:
        save()
    text = f"{machine()}\n\n{table(kept)}\n"
    (output / "runtimes.md").write_text(text)
    if data is not None:
        plot(kept, output / "runtimes.png")
    logger.info("Table, json%s are in %s", " and plot" * (data is not None), output)
    return text, facts


def drawn_scene() -> np.ndarray:
    """A picture (640, 640, 3) uint8 with shapes among clutter: as large as usual ones."""
    return draw_picture(0, "val", 0, 640)[0]


def _refuse_equal_names(models: Sequence[Model]) -> None:
    names = [model.name for model in models]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"more than one model is called {', '.join(twice)}; rename one")
