"""What the objects of an evaluation were taken for, as counts and as a picture.

Letters: C classes, G objects and D detections of an image, K pairs of classes that were met. Counts
are kept of those pairs alone: a matrix of 13,000 classes has 169 million entries.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from pycocotools import mask as mask_utils
from pycocotools.cocoeval import COCOeval

MATCH_IOU = 0.5  # of a detection with the object it found
MATCH_SCORE = 0.35  # a detection below it is none
BACKGROUND = "background"
LEGEND_CLASSES = 12  # curves that a legend still tells apart, rows with room for numbers
LABELLED_CLASSES = 100  # rows of a matrix that can still be labelled, curves of a picture
PLAIN_TEXT: dict[Any, Any] = {"text.parse_math": False}  # a class may be called "$a_b$"


def confusion_of(coco_eval: COCOeval) -> np.ndarray:
    """What the objects of all images were taken for.

    Returns:
        (K, 3) rows of object class, detection class and count, by class; the class C is the
        background.
    """
    index = {key: i for i, key in enumerate(coco_eval.params.catIds)}
    background = len(index)
    total: collections.Counter[tuple[int, int]] = collections.Counter()
    for image_id in coco_eval.params.imgIds:
        objects = coco_eval.cocoGt.imgToAnns[image_id]
        objects = [x for x in objects if not x.get("iscrowd", 0) and x["category_id"] in index]
        found = [x for x in coco_eval.cocoDt.imgToAnns[image_id] if x["score"] > MATCH_SCORE]
        found.sort(key=lambda x: -x["score"])
        pairs = confusion_pairs(
            np.array([x["bbox"] for x in objects], dtype=np.float64).reshape(-1, 4),
            np.array([index[x["category_id"]] for x in objects], dtype=np.int64),
            np.array([x["bbox"] for x in found], dtype=np.float64).reshape(-1, 4),
            np.array([index[x["category_id"]] for x in found], dtype=np.int64),
            background,
        )
        total.update(pairs)
    rows = [(*pair, count) for pair, count in sorted(total.items())]
    return np.array(rows, dtype=np.int64).reshape(-1, 3)


def confusion_pairs(
    boxes: np.ndarray,
    classes: np.ndarray,
    found_boxes: np.ndarray,
    found_classes: np.ndarray,
    background: int,
) -> list[tuple[int, int]]:
    """What the objects of an image were taken for.

    A detection, best first, takes the free object it overlaps most, whatever the classes; of the
    objects that it overlaps enough, those of its own class come first.

    Args:
        boxes: (G, 4) XYWH of the objects; ``classes`` (G,).
        found_boxes: (D, 4) XYWH of the detections, best first; ``found_classes`` (D,).
        background: the class of a detection's missing object, and of a missed object's detection.

    Returns:
        the class of the object and that of the detection, of each of them once.
    """
    pairs = []
    free = np.ones(len(boxes), dtype=bool)
    if len(boxes) and len(found_boxes):
        overlaps = np.asarray(
            mask_utils.iou(found_boxes, boxes, np.zeros(len(boxes), dtype=np.uint8))
        )  # (D, G)
    else:
        overlaps = np.zeros((len(found_boxes), len(boxes)))
    for overlap, found in zip(overlaps, found_classes.tolist()):
        allowed = free & (overlap > MATCH_IOU)
        if not allowed.any():
            pairs.append((background, found))
            continue
        best = int(np.argmax(np.where(allowed, overlap + (classes == found), -1.0)))
        free[best] = False
        pairs.append((int(classes[best]), found))
    return pairs + [(missed, background) for missed in classes[free].tolist()]


@matplotlib.rc_context(PLAIN_TEXT)
def draw_confusion(counts: np.ndarray, class_names: Sequence[str], path: Path) -> None:
    """Shares of each row, with the counts where there is room for them.

    Of more classes than can be labelled, those that are mistaken for each other most often.

    Args:
        counts: (K, 3) of :func:`confusion_of`.
    """
    shown = _most_confused(counts, len(class_names))
    names = [*(class_names[c] for c in shown[:-1]), BACKGROUND]
    totals = np.bincount(counts[:, 0], counts[:, 2], minlength=len(class_names) + 1)[shown]
    matrix = _dense(counts, shown)
    side = min(16.0, max(5.0, 1.5 + 0.25 * len(names)))
    figure = Figure(figsize=(side + 1, side))
    axes = figure.subplots()
    shares = matrix / np.maximum(totals, 1)[:, None]
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(picture, ax=axes, label="share of the row", fraction=0.04)
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    if len(names) <= LEGEND_CLASSES:
        for (row, column), count in np.ndenumerate(matrix):
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, count, ha="center", va="center", fontsize=8, color=color)
    axes.set(xlabel="detection", ylabel="object")
    title = f"score above {MATCH_SCORE}, IoU above {MATCH_IOU}"
    if len(shown) <= len(class_names):
        title += f"; the {len(shown) - 1} of {len(class_names)} classes most often mistaken"
    axes.set_title(title, fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=100)


def _most_confused(counts: np.ndarray, num_classes: int) -> np.ndarray:
    """The classes that a picture has room for, in order, and the background."""
    if num_classes < LABELLED_CLASSES:
        return np.arange(num_classes + 1)
    rows, columns, number = counts.T
    between = (rows != columns) & (rows < num_classes) & (columns < num_classes)
    mistaken = np.bincount(rows[between], number[between], minlength=num_classes)
    mistaken += np.bincount(columns[between], number[between], minlength=num_classes)
    chosen = np.argsort(-mistaken, kind="stable")[: LABELLED_CLASSES - 1]
    return np.append(np.sort(chosen), num_classes)


def _dense(counts: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """The square matrix of the ``shown`` classes, which are in order."""
    rows, columns, number = counts[np.isin(counts[:, :2], shown).all(axis=1)].T
    matrix = np.zeros((len(shown), len(shown)), dtype=np.int64)
    np.add.at(matrix, (np.searchsorted(shown, rows), np.searchsorted(shown, columns)), number)
    return matrix
