"""The pictures that a model is least sure of, ready to be labelled."""

from __future__ import annotations

import heapq
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from nanodet_d2.runtime.detections import Detections
from nanodet_d2.runtime.draw import draw_detections
from nanodet_d2.runtime.images import ImageError, read_bytes

from .items import Item
from .rows import content

FOLDER = "review"
# A score says how well a box fits, not only whether there is something: boxes are shown from about
# 0.35 on, and that is where the model is in doubt, not at 0.5.
UNDECIDED, DOUBT = 0.35, 0.2
_TAIL = 60  # characters of a name that a copy keeps


def uncertainty(scores: Iterable[float]) -> float:
    """How many boxes of a picture are in doubt: of each 1 at the score 0.35, falling to 0 at 0.15
    and 0.55, summed.

    The sum over boxes of a margin, which chose best in Brust et al., "Active Learning for Deep
    Object Detection" (2019), section 3; their margin is that between two classes, which a detector
    of one score per class and box does not have.
    """
    return sum(max(0.0, 1 - abs(score - UNDECIDED) / DOUBT) for score in scores)


def most_uncertain(rows: Iterable[dict[str, Any]], count: int) -> list[tuple[float, int, Any]]:
    """(uncertainty, number of the row, row) of those most in doubt, the first on a tie first; rows
    without any doubt are left out."""
    rated = (
        (round(uncertainty(x["score"] for x in row["detections"]), 4), -number, row)
        for number, row in enumerate(rows)
    )
    chosen = heapq.nlargest(count, (x for x in rated if x[0] > 0), key=lambda x: x[:2])
    return [(doubt, -negative, row) for doubt, negative, row in chosen]


def write_review(
    output: Path,
    chosen: Sequence[tuple[float, Item, dict[str, Any]]],
    class_names: Sequence[str],
    *,
    max_pixels: int,
) -> Path:
    """Write ``review/``: copies of the pictures in ``images/``, their boxes drawn in ``previews/``,
    and ``review.json``, a COCO data set whose annotations are those boxes that are rather there
    than not, to be corrected.

    Args:
        chosen: (uncertainty, picture, row), the most uncertain first.

    Raises:
        OSError: if it cannot be written.
        ImageError: if a picture is no longer what it was.
        ValueError: if there is another review, in which somebody may have worked.
    """
    part, folder = output / f"{FOLDER}.part", output / FOLDER
    for name in ("images", "previews"):
        (part / name).mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (doubt, item, row) in enumerate(chosen, 1):
        name = copy_name(number, item.name)
        _write_pictures(part, name, item, row, tuple(class_names), max_pixels)
        images.append(
            {"id": number, "file_name": name, "width": row["width"], "height": row["height"],
             "source": item.name, "uncertainty": doubt}
        )  # fmt: skip
        for found in row["detections"]:
            if found["score"] >= UNDECIDED:
                found = {key: value for key, value in found.items() if key != "category"}
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": number, **found, "iscrowd": 0}
                )
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(class_names)]
    whole = {"categories": categories, "images": images, "annotations": annotations}
    text, written = json.dumps(whole), folder / "review.json"
    (part / written.name).write_text(text, encoding="utf-8")
    if not folder.exists():
        os.replace(part, folder)
        return written
    shutil.rmtree(part)
    if not written.is_file() or written.read_text(encoding="utf-8") != text:
        raise ValueError(f"{folder} is there, and not what would be written: move it elsewhere")
    return written


def copy_name(number: int, name: str) -> str:
    """The name of a picture's copy: its rank, and the end of its own name as any disk takes it."""
    end = name.partition("?")[0].rpartition("/")[2]
    safe = "".join(x if x.isascii() and (x.isalnum() or x in "-_.") else "_" for x in end)
    return f"{number:04}_{safe[-_TAIL:]}"


def _write_pictures(
    folder: Path,
    name: str,
    item: Item,
    row: dict[str, Any],
    class_names: tuple[str, ...],
    max_pixels: int,
) -> None:
    data = content(item)
    image = read_bytes(data, item.name, max_pixels=max_pixels)
    if image.shape[:2] != (row["height"], row["width"]):
        raise ImageError(f"{item.name} is no longer the picture that it was", path=item.name)
    (folder / "images" / name).write_bytes(data)
    drawn = draw_detections(image, _doubtful(row, class_names))
    preview = folder / "previews" / f"{name}.jpg"
    if not cv2.imwrite(str(preview), drawn):
        raise OSError(f"{preview} cannot be written")


def _doubtful(row: dict[str, Any], class_names: tuple[str, ...]) -> Detections:
    """A row's detections, without those that are almost certainly none."""
    found = [x for x in row["detections"] if x["score"] > UNDECIDED - DOUBT]
    boxes = np.array([x["bbox"] for x in found], np.float32).reshape(-1, 4)
    return Detections(
        xyxy=np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1),
        confidence=np.array([x["score"] for x in found], np.float32),
        class_id=np.array([x["category_id"] - 1 for x in found], np.int64),
        class_names=class_names,
        image_size=(row["height"], row["width"]),
    )
