"""Pictures and tables of an evaluation and of a training, for people who would rather look.

Letters: C classes, R recall steps of COCO's evaluation (101).
"""

from __future__ import annotations

import collections
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from pycocotools.cocoeval import COCOeval

from .confusion import (
    BACKGROUND,
    LABELLED_CLASSES,
    LEGEND_CLASSES,
    MATCH_IOU,
    MATCH_SCORE,
    PLAIN_TEXT,
    confusion_of,
    draw_confusion,
)
from .mistakes import warn_of_swapped_classes


def write_evaluation_report(coco_eval: COCOeval, class_names: Sequence[str], folder: str) -> None:
    """Write ``per_class.json``, ``precision_recall.png``, ``confusion.json`` and ``.png``.

    Args:
        coco_eval: after ``accumulate``; its categories are in the order of ``class_names``.
        class_names: C names.
        folder: is made if it is not there.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    # (IoU, R, C, area, detections): all areas, most detections. -1 where a class has no object.
    precision = coco_eval.eval["precision"][:, :, :, 0, -1]
    annotations = coco_eval.cocoGt.anns.values()
    objects = collections.Counter(x["category_id"] for x in annotations if not x.get("iscrowd", 0))
    per_class = {
        name: {
            "AP": _percent(precision[:, :, c]),
            "AP50": _percent(precision[0, :, c]),
            "objects": objects[coco_eval.params.catIds[c]],
        }
        for c, name in enumerate(class_names)
    }
    _write_json(target / "per_class.json", per_class)
    draw_precision_recall(precision[0], class_names, target / "precision_recall.png")
    counts = confusion_of(coco_eval)
    content = {
        "rows": "object",
        "columns": "detection",
        "score_above": MATCH_SCORE,
        "iou_above": MATCH_IOU,
        "classes": [*class_names, BACKGROUND],
        "counts_are": "row, column, count; of the pairs that were met",
        "counts": counts.tolist(),
    }
    _write_json(target / "confusion.json", content)
    draw_confusion(counts, class_names, target / "confusion.png")
    warn_of_swapped_classes(counts, class_names)


@matplotlib.rc_context(PLAIN_TEXT)
def draw_precision_recall(precision: np.ndarray, class_names: Sequence[str], path: Path) -> None:
    """Curves at an IoU of 0.5 from precision (R, C), -1 where a class has no object.

    Of more classes than can be told apart, the band that nine tenths and half of them lie in.
    """
    figure = Figure(figsize=(7, 5))
    axes = figure.subplots()
    recall = np.linspace(0, 1, len(precision))
    known = np.flatnonzero((precision > -1).all(axis=0))
    if len(known) <= LABELLED_CLASSES:
        for c in known.tolist():
            axes.plot(recall, precision[:, c], lw=1, alpha=0.6, label=class_names[c])
    else:
        low, lower, upper, high = np.percentile(precision[:, known], (5, 25, 75, 95), axis=1)
        axes.fill_between(recall, low, high, alpha=0.2, lw=0, label="nine tenths of the classes")
        axes.fill_between(recall, lower, upper, alpha=0.4, lw=0, label="half of them")
    if len(known):
        axes.plot(recall, precision[:, known].mean(axis=1), "k", lw=2.5, label="mean")
    if 0 < len(known) <= LEGEND_CLASSES or len(known) > LABELLED_CLASSES:
        axes.legend(loc="lower left", fontsize=8)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axes.set_title(f"IoU 0.5; mean of {len(known)} classes in black")
    figure.tight_layout()
    figure.savefig(path, dpi=100)


def draw_curves(metrics_file: Path, path: Path) -> None:
    """Losses, AP, learning rate and the loader's share of a step from detectron2's metrics.json."""
    series: dict[str, list[tuple[int, float]]] = {}
    for line in _metrics(metrics_file):
        for name, value in line.items():
            if isinstance(value, (int, float)) and math.isfinite(value):
                series.setdefault(name, []).append((line["iteration"], value))
        if line.get("time") and "data_time" in line:
            share = min(line["data_time"] / line["time"], 1.0)
            series.setdefault("data_time / time", []).append((line["iteration"], share))
    panels: dict[str, list[str]] = {
        "losses": [x for x in series if "loss" in x],
        "box AP": [x for x in ("bbox/AP", "bbox/AP50", "bbox/AP75") if x in series],
        "learning rate": [x for x in ("lr",) if x in series],
        "loader's share of a step": [x for x in ("data_time / time",) if x in series],
    }
    figure = Figure(figsize=(11, 7))
    for axes, (title, names) in zip(figure.subplots(2, 2).flat, panels.items()):
        for name in names:
            axes.plot(*zip(*series[name]), ".-" if title == "box AP" else "-", lw=1.2, label=name)
        axes.set(title=title, xlabel="iteration")
        axes.set_ylim(bottom=0)
        if len(names) > 1:
            axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=100)


def _metrics(file: Path) -> Iterator[dict[str, Any]]:
    """The lines of metrics.json, but for those that a killed training or a full disk left torn."""
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            content = json.loads(line)
        except ValueError:
            continue
        if isinstance(content, dict) and isinstance(content.get("iteration"), int):
            yield content


def _percent(precision: np.ndarray) -> float | None:
    known = precision[precision > -1]
    return 100 * float(known.mean()) if known.size else None


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
