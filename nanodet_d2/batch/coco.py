"""Rows as one COCO data set with scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nanodet_d2.runtime.results import annotations_of, categories_of, images_of, write_sections

FILE = "detections.json"
Rows = Iterable[dict[str, Any]]


def write_coco(
    output: Path, class_names: Sequence[str], rows: Callable[[], Rows], header: Mapping[str, Any]
) -> Path:
    """Write ``detections.json``, whose ``info`` is the header.

    Rows with an error have no size, so they are no images; they stand in ``unreadable``.

    Args:
        rows: gives all of them, each time it is called.

    Raises:
        OSError: if it cannot be written.
    """
    broken = [{k: row[k] for k in ("file_name", "error")} for row in rows() if row["error"]]
    sections = {
        "info": header,
        "categories": categories_of(class_names),
        "images": images_of(_readable(rows())),
        "annotations": annotations_of(_readable(rows())),
        **({"unreadable": broken} if broken else {}),
    }
    path = output / FILE
    write_sections(path, sections)
    return path


def _readable(rows: Rows) -> Iterator[tuple[int, dict[str, Any]]]:
    good = (row for row in rows if not row["error"])
    for number, row in enumerate(good, 1):
        yield number, {k: v for k, v in row.items() if k != "error"}
