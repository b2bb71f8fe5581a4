"""What a data set's folder holds: its layout, splits, classes and counts, and pictures of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from nanodet_d2.data.images import read_image
from nanodet_d2.data.readers import SPLITS, Layout
from nanodet_d2.data.sources import (
    SplitSource,
    evaluated_split,
    layout_of,
    read_split,
    rule_of,
    source_of,
)
from nanodet_d2.runtime.draw import contact_sheet, draw_boxes
from nanodet_d2.runtime.images import ImageError

from .annotations import Split, examine_annotations
from .report import findings_as_text, most_and_least, problems_as_json

_COLUMNS = 4  # of a sheet
_SIDE = 480  # pixels of a picture's longer side
_DIVIDED = "val, of train"  # in place of a split that the layout has


def overview(data: Mapping[str, Any], output: str | Path, *, pictures: int = 12) -> dict[str, Any]:
    """Describe a data set, and draw some images of each split to ``output``.

    Args:
        data: the ``data`` section of a config, with ``source``, the data set's folder.
        pictures: of a split, at most; none are drawn if 0.

    Returns:
        ``folder``, ``layout``, ``what`` it is, ``classes``, ``splits`` (images, images without
        boxes, boxes, boxes per class, problems, notes, sheet), and what a training would use:
        ``trained_on`` and ``evaluated_on``, or ``trained_on`` None and why.

    Raises:
        FileNotFoundError, ValueError: as :func:`nanodet_d2.data.readers.find_layout`, and for what
            cannot be read.
    """
    if pictures < 0:
        raise ValueError(f"--images {pictures}; allowed: 0 or more")
    layout = layout_of(data)
    rows, facts = _rows(data, layout)
    facts = {"folder": str(data["source"]), "layout": layout.name, "what": layout.what, **facts}
    classes: dict[str, None] = {}
    splits = {}
    for name, source in rows.items():
        split = examine_annotations(
            name,
            read_split(source),
            source.name,
            source.files.images,
            input_size=data["input_size"],
            allow_outside=bool(data.get("allow_outside")),
        )
        classes.update(dict.fromkeys(split.classes))
        sheet = _write_sheet(split, Path(output), pictures)
        splits[name] = {
            **{key: split.figures[key] for key in ("images", "images_without_boxes", "boxes")},
            "classes": {k: v["boxes"] for k, v in split.figures["classes"].items()},
            "problems": problems_as_json(split.problems),
            "notes": split.notes,
            "sheet": sheet,
        }
    return {**facts, "classes": list(classes), "splits": splits}


def _rows(
    data: Mapping[str, Any], layout: Layout
) -> tuple[dict[str, SplitSource], dict[str, str | None]]:
    """The splits to describe, and what a training would use of them."""
    order = sorted(layout.splits, key=lambda x: (*SPLITS, x).index(x))
    rows = {name: SplitSource(layout.splits[name]) for name in order}
    trained = (data.get("train") or {}).get("split") or "train"
    evaluated = evaluated_split(data, layout)
    try:
        train, val = source_of(data, "train"), source_of(data, "val")
        assert train is not None and val is not None
        if evaluated is None:
            read_split(val)  # too few images to be divided?
    except ValueError as error:
        return rows, {"trained_on": None, "evaluated_on": None, "why": str(error)}
    if evaluated is not None:
        return rows, {"trained_on": trained, "evaluated_on": evaluated}
    rule = rule_of(data)
    how = f"as {rule.file} says" if rule.file else f"data.val_share={rule.share:g}"
    parts = {trained: train, _DIVIDED: val}
    others = {name: source for name, source in rows.items() if name != trained}
    part = f"a part of {trained}, {how}"
    return {**parts, **others}, {"trained_on": f"the rest of {trained}", "evaluated_on": part}


def _write_sheet(split: Split, folder: Path, count: int) -> str | None:
    """Draw images of a split; the path of the file, None if there is none."""
    drawn: list[np.ndarray] = []
    for record in choose_records(list(split.records.values()), count):
        if len(drawn) == count:
            break
        if record["file_name"] in split.missing:
            continue
        try:
            drawn.append(_drawn(record, split.classes))
        except ImageError as error:
            what = "images that cannot be used, among those that were to be drawn"
            split.problems.add(what, f"{error.path}: {error.reason}")
    if not drawn:
        return None
    columns = min(_COLUMNS, len(drawn))
    title = f"{split.name}: {len(drawn)} of {len(split.records)} images"
    drawn += [np.full((1, 1, 3), 255, np.uint8)] * (-len(drawn) % columns)
    rows = [drawn[i : i + columns] for i in range(0, len(drawn), columns)]
    sheet = contact_sheet(rows, [title, *[""] * (columns - 1)])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{split.name.replace(', ', '_').replace(' ', '_')}.jpg"
    path.write_bytes(cv2.imencode(".jpg", sheet)[1].tobytes())
    return str(path)


def choose_records(records: Sequence[dict[str, Any]], count: int) -> Iterator[dict[str, Any]]:
    """Records in the order to draw: those that show all classes first, then others evenly."""
    shown = [{x["category_id"] for x in record["annotations"]} for record in records]
    left = set().union(*shown) if shown else set()
    taken: dict[int, None] = {}
    while left and len(taken) < count:
        best = max(range(len(records)), key=lambda i: (len(shown[i] & left), -i))
        taken[best] = None
        left -= shown[best]
    step = max(1, len(records) // max(1, count))
    for start in range(step):
        taken.update(dict.fromkeys(range(start, len(records), step)))
    return (records[i] for i in taken)


def _drawn(record: dict[str, Any], classes: Sequence[str]) -> np.ndarray:
    """The image with its boxes and their classes."""
    image = read_image(dict(record), "BGR", at_least=(_SIDE, _SIDE))
    scale = _SIDE / max(record["height"], record["width"])
    size = [max(1, round(record[key] * scale)) for key in ("width", "height")]
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    boxes = np.array([x["bbox"] for x in record["annotations"]]).reshape(-1, 4) * scale
    labels = [x["category_id"] for x in record["annotations"]]
    texts = [
        classes[x["category_id"]] + (" (crowd)" if x["iscrowd"] else "")
        for x in record["annotations"]
    ]
    return draw_boxes(image, boxes, texts, labels)


def as_text(facts: Mapping[str, Any]) -> str:
    """An overview for a terminal."""
    splits = facts["splits"]
    lines = [f"{facts['folder']}: {facts['what']}, {len(facts['classes'])} classes", ""]
    lines += _table(facts)
    if facts["trained_on"] is None:
        lines.append(f"cannot be trained on as it is: {facts['why']}")
    else:
        lines.append(f"trained on: {facts['trained_on']}; evaluated on: {facts['evaluated_on']}")
    if "test" in splits:
        lines.append("test is never trained on")
    for name, split in splits.items():
        problems = [(x["what"], x["count"], x["first"]) for x in split["problems"]]
        found = findings_as_text(problems, split["notes"])
        lines += [name, *found] if found else []
    sheets = [split["sheet"] for split in splits.values() if split["sheet"]]
    lines.append(f"drawn: {', '.join(sheets)}" if sheets else "nothing was drawn")
    return "\n".join(lines)


def _table(facts: Mapping[str, Any]) -> list[str]:
    """A column for each split; a row for each class."""
    splits = facts["splits"]
    total = {name: sum(x["classes"].get(name, 0) for x in splits.values()) for name in
             facts["classes"]}  # fmt: skip
    rows: list[tuple[str, list[str]]] = [("", list(splits))]
    for key, what in (
        ("images", "images"),
        ("images_without_boxes", "  without boxes"),
        ("boxes", "boxes"),
    ):
        rows.append((what, [str(x[key]) for x in splits.values()]))
    for name, count in most_and_least(total).items():
        counts = [str(x["classes"].get(name, 0)) for x in splits.values()]
        rows.append((f"  {name}"[:40], counts if count is not None else []))
    first = max(len(name) for name, _ in rows)
    widths = [max(len(name), 8) for name in splits]
    return [
        (f"{name:{first}}" + "".join(f"  {x:>{w}}" for x, w in zip(cells, widths))).rstrip()
        for name, cells in rows
    ] + [""]
