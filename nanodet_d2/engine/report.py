"""Pictures and tables of an evaluation and of a training, for people who would rather look.

Letters: C classes, R recall steps of COCO's evaluation (101).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from pycocotools import mask as mask_utils
from pycocotools.cocoeval import COCOeval

MATCH_IOU = 0.5  # of a detection with the object it found, in the confusion matrix
MATCH_SCORE = 0.35  # a detection below it is none, there
BACKGROUND = "background"
_LEGEND_CLASSES = 12  # curves that a legend still tells apart
_LABELLED_CLASSES = 100  # rows of a matrix that can still be labelled
_PLAIN_TEXT = {"text.parse_math": False}  # a class may be called "$a_b$"


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
    per_class = {
        name: {
            "AP": _percent(precision[:, :, c]),
            "AP50": _percent(precision[0, :, c]),
            "objects": _count_objects(coco_eval, coco_eval.params.catIds[c]),
        }
        for c, name in enumerate(class_names)
    }
    _write_json(target / "per_class.json", per_class)
    draw_precision_recall(precision[0], class_names, target / "precision_recall.png")
    matrix = confusion_of(coco_eval)
    content = {
        "rows": "object",
        "columns": "detection",
        "score_above": MATCH_SCORE,
        "iou_above": MATCH_IOU,
        "classes": [*class_names, BACKGROUND],
        "counts": matrix.tolist(),
    }
    _write_json(target / "confusion.json", content)
    draw_confusion(matrix, class_names, target / "confusion.png")


def confusion_of(coco_eval: COCOeval) -> np.ndarray:
    """Confusion matrix (C + 1, C + 1) over all images; the last row and column are background."""
    index = {key: i for i, key in enumerate(coco_eval.params.catIds)}
    total = np.zeros((len(index) + 1, len(index) + 1), dtype=np.int64)
    for image_id in coco_eval.params.imgIds:
        objects = coco_eval.cocoGt.imgToAnns[image_id]
        objects = [x for x in objects if not x.get("iscrowd", 0) and x["category_id"] in index]
        found = [x for x in coco_eval.cocoDt.imgToAnns[image_id] if x["score"] > MATCH_SCORE]
        found.sort(key=lambda x: -x["score"])
        total += confusion_matrix(
            np.array([x["bbox"] for x in objects], dtype=np.float64).reshape(-1, 4),
            np.array([index[x["category_id"]] for x in objects], dtype=np.int64),
            np.array([x["bbox"] for x in found], dtype=np.float64).reshape(-1, 4),
            np.array([index[x["category_id"]] for x in found], dtype=np.int64),
            len(index),
        )
    return total


def confusion_matrix(
    boxes: np.ndarray,
    classes: np.ndarray,
    found_boxes: np.ndarray,
    found_classes: np.ndarray,
    num_classes: int,
) -> np.ndarray:
    """What the objects of an image were taken for.

    A detection, best first, takes the free object it overlaps most, whatever the classes; of the
    objects that it overlaps enough, those of its own class come first.

    Args:
        boxes: (G, 4) XYWH of the objects; ``classes`` (G,).
        found_boxes: (D, 4) XYWH of the detections, best first; ``found_classes`` (D,).

    Returns:
        (C + 1, C + 1) counts, by object and detection; the last of each is the background.
    """
    matrix = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
    free = np.ones(len(boxes), dtype=bool)
    if len(boxes) and len(found_boxes):
        overlaps = np.asarray(
            mask_utils.iou(found_boxes, boxes, np.zeros(len(boxes), dtype=np.uint8))
        )  # (D, G)
    else:
        overlaps = np.zeros((len(found_boxes), len(boxes)))
    for overlap, found in zip(overlaps, found_classes):
        allowed = free & (overlap > MATCH_IOU)
        if not allowed.any():
            matrix[num_classes, found] += 1
            continue
        best = int(np.argmax(np.where(allowed, overlap + (classes == found), -1.0)))
        free[best] = False
        matrix[classes[best], found] += 1
    np.add.at(matrix, (classes[free], num_classes), 1)
    return matrix


@matplotlib.rc_context(_PLAIN_TEXT)
def draw_precision_recall(precision: np.ndarray, class_names: Sequence[str], path: Path) -> None:
    """Curves at an IoU of 0.5 from precision (R, C), -1 where a class has no object."""
    figure = Figure(figsize=(7, 5))
    axes = figure.subplots()
    recall = np.linspace(0, 1, len(precision))
    known = [c for c in range(len(class_names)) if (precision[:, c] > -1).all()]
    for c in known:
        axes.plot(recall, precision[:, c], lw=1, alpha=0.6, label=class_names[c])
    if known:
        axes.plot(recall, precision[:, known].mean(axis=1), "k", lw=2.5, label="mean")
    if 0 < len(known) <= _LEGEND_CLASSES:
        axes.legend(loc="lower left", fontsize=8)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axes.set_title(f"IoU 0.5; mean of {len(known)} classes in black")
    figure.tight_layout()
    figure.savefig(path, dpi=100)


@matplotlib.rc_context(_PLAIN_TEXT)
def draw_confusion(matrix: np.ndarray, class_names: Sequence[str], path: Path) -> None:
    """Shares of each row, with the counts where there is room for them."""
    names = [*class_names, BACKGROUND]
    side = min(16.0, max(5.0, 1.5 + 0.25 * len(names)))
    figure = Figure(figsize=(side + 1, side))
    axes = figure.subplots()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(picture, ax=axes, label="share of the row", fraction=0.04)
    if len(names) <= _LABELLED_CLASSES:
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
        axes.set_yticks(range(len(names)), names, fontsize=7)
    if len(names) <= _LEGEND_CLASSES:
        for (row, column), count in np.ndenumerate(matrix):
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, count, ha="center", va="center", fontsize=8, color=color)
    axes.set(xlabel="detection", ylabel="object")
    axes.set_title(f"score above {MATCH_SCORE}, IoU above {MATCH_IOU}", fontsize=9)
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
    panels = {
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


def _count_objects(coco_eval: COCOeval, category_id: int) -> int:
    return len(coco_eval.cocoGt.getAnnIds(catIds=[category_id], iscrowd=False))


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
