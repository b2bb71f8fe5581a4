"""Detections on disk: a line of json for each picture as it comes, and one COCO file at the end."""

from __future__ import annotations

import errno
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .detections import Detections
from .sources import Frame


class Results:
    """``detections.jsonl``, whole after every picture, and ``detections.json`` made of it.

    The latter is a COCO data set; its annotations have scores, so they serve as results, too.
    Category ids are the model's class indices plus one. Images of a video have ``frame``. Memory
    does not grow with the number of pictures.

    Attributes:
        pictures, detections: how many were added.

    Raises:
        OSError: if the files cannot be written.
    """

    def __init__(self, class_names: Sequence[str], folder: Path):
        self.class_names = list(class_names)
        self.lines, self.path = folder / "detections.jsonl", folder / "detections.json"
        folder.mkdir(parents=True, exist_ok=True)
        self.path.unlink(missing_ok=True)  # an earlier run's, which would pass for this one's
        self._file = open(self.lines, "wb", buffering=0)
        self._size = self.pictures = self.detections = 0

    def add(self, frame: Frame, found: Detections) -> None:
        """Append the detections of a frame.

        Raises:
            OSError: if there is no room for all of the line; nothing of it is left then.
        """
        picture = picture_row(frame.name, found, number=frame.number)
        self._append(json.dumps(picture).encode() + b"\n")
        self.pictures += 1
        self.detections += len(found)

    def _append(self, line: bytes) -> None:
        written = None
        try:
            written = self._file.write(line)
        finally:
            if written != len(line):  # a full disk takes a part of it, and says so the next time
                self._file.truncate(self._size)
                self._file.seek(self._size)
        if written != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.lines))
        self._size += len(line)

    def close(self) -> None:
        """Write the COCO file, under another name first.

        Raises:
            OSError: if it cannot be written; the lines are still there.
        """
        self._file.close()
        write_coco(self.path, self.class_names, self._pictures)

    def _pictures(self) -> Iterator[dict[str, Any]]:
        with open(self.lines, encoding="utf-8") as file:
            yield from map(json.loads, file)


def picture_row(name: str, found: Detections, *, number: int | None = None) -> dict[str, Any]:
    """What is written of a picture: its size, and boxes as COCO has them, [x, y, width, height].

    Args:
        number: of the frame within a video.
    """
    height, width = found.image_size
    row: dict[str, Any] = {"file_name": name}
    row.update({} if number is None else {"frame": number})
    detections = []
    rows = zip(found.xyxy.tolist(), found.confidence.tolist(), found.class_id.tolist())
    for (x0, y0, x1, y1), score, label in rows:
        box = [round(x, 2) for x in (x0, y0, x1 - x0, y1 - y0)]
        detections.append(
            {"category_id": label + 1, "category": found.class_names[label], "bbox": box,
             "area": round(box[2] * box[3], 2), "score": round(score, 5)}
        )  # fmt: skip
    row.update(width=width, height=height, detections=detections)
    return row


def write_coco(
    path: Path,
    class_names: Sequence[str],
    rows: Callable[[], Iterable[dict[str, Any]]],
    *,
    info: Mapping[str, Any] | None = None,
) -> None:
    """Write a COCO data set of :func:`picture_row`'s rows, under another name first.

    Rows with an ``error`` have no size, so they are no images; they stand in ``unreadable``.

    Args:
        rows: gives all of them, each time it is called.
        info: of the data set, if there is anything to say.

    Raises:
        OSError: if it cannot be written.
    """
    part = path.with_suffix(".part")
    with open(part, "w", encoding="utf-8") as file:
        names = [{"id": i + 1, "name": name} for i, name in enumerate(class_names)]
        file.write("{" if info is None else f'{{"info": {json.dumps(info)}, ')
        file.write(f'"categories": {json.dumps(names)}, "images": [')
        _write_all(file, _images(rows()))
        file.write('], "annotations": [')
        _write_all(file, _annotations(rows()))
        broken = [{k: row[k] for k in ("file_name", "error")} for row in rows() if row.get("error")]
        file.write(f'], "unreadable": {json.dumps(broken)}}}' if broken else "]}")
    os.replace(part, path)


def _readable(rows: Iterable[dict[str, Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
    return enumerate((row for row in rows if not row.get("error")), 1)


def _images(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for number, row in _readable(rows):
        yield {"id": number, **{k: v for k, v in row.items() if k not in ("detections", "error")}}


def _annotations(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    ids = itertools.count(1)
    for number, row in _readable(rows):
        for found in row["detections"]:
            del found["category"]
            yield {"id": next(ids), "image_id": number, **found, "iscrowd": 0}


def _write_all(file: Any, entries: Iterator[dict[str, Any]]) -> None:
    for i, entry in enumerate(entries):
        file.write((", " if i else "") + json.dumps(entry))
