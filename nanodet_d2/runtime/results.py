"""Detections on disk: a line of json for each picture as it comes, and one COCO file at the end."""

from __future__ import annotations

import errno
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .detections import Detections
from .sources import Frame


class Results:
    """``detections.jsonl``, whole after every picture, and ``detections.json`` made of it.

    The latter is a COCO data set; its annotations have scores, so they serve as results, too.
    Category ids are the model's class indices plus one. Images of a video have ``frame``. Memory
    does not grow with the number of pictures.

    Args:
        stem: of the files' names.

    Attributes:
        pictures, detections: how many were added.

    Raises:
        OSError: if the files cannot be written.
    """

    def __init__(self, class_names: Sequence[str], folder: Path, *, stem: str = "detections"):
        self.class_names = list(class_names)
        self.lines, self.path = folder / f"{stem}.jsonl", folder / f"{stem}.json"
        folder.mkdir(parents=True, exist_ok=True)
        self.path.unlink(missing_ok=True)  # an earlier run's, which would pass for this one's
        self._file = open(self.lines, "wb", buffering=0)
        self._size = self.pictures = self.detections = 0

    def add(self, frame: Frame, found: Detections) -> None:
        """Append the detections of a frame.

        Raises:
            OSError: if there is no room for all of the line; nothing of it is left then.
        """
        self.add_picture(self.describe(frame, found))

    def describe(self, frame: Frame, found: Detections) -> dict[str, Any]:
        """The line of a frame."""
        return picture_row(frame.name, found, number=frame.number)

    def add_picture(self, picture: dict[str, Any]) -> None:
        """Append a line."""
        self._append(json.dumps(picture).encode() + b"\n")
        self.pictures += 1
        self.detections += len(picture["detections"])

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
        write_sections(self.path, self.sections())

    def sections(self) -> dict[str, Iterable[dict[str, Any]]]:
        """Of the COCO file."""
        images, annotations = self._images(), self._annotations()
        categories = categories_of(self.class_names)
        return {"categories": categories, "images": images, "annotations": annotations}

    def read(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """The lines again, numbered from 1."""
        with open(self.lines, encoding="utf-8") as file:
            yield from enumerate(map(json.loads, file), 1)

    def _images(self) -> Iterator[dict[str, Any]]:
        return images_of(self.read())

    def _annotations(self) -> Iterator[dict[str, Any]]:
        return annotations_of(self.read())


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


def categories_of(class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Those of a COCO data set."""
    return [{"id": i + 1, "name": name} for i, name in enumerate(class_names)]


def images_of(rows: Iterable[tuple[int, dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """A COCO data set's images, of numbered rows as :func:`picture_row` makes them."""
    for number, row in rows:
        yield {"id": number, **{k: v for k, v in row.items() if k != "detections"}}


def annotations_of(rows: Iterable[tuple[int, dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """The annotations that go with :func:`images_of`."""
    ids = itertools.count(1)
    for number, row in rows:
        for found in row["detections"]:
            box = {k: v for k, v in found.items() if k != "category"}
            yield {"id": next(ids), "image_id": number, **box, "iscrowd": 0}


def write_sections(path: Path, sections: Mapping[str, Any]) -> None:
    """Write a json object of lists, which may be iterators, and objects; under another name first.

    Raises:
        OSError: if it cannot be written.
    """
    part = path.with_suffix(".part")
    with open(part, "w", encoding="utf-8") as file:
        for i, (name, entries) in enumerate(sections.items()):
            file.write((", " if i else "{") + json.dumps(name) + ": ")
            if isinstance(entries, Mapping):
                file.write(json.dumps(entries))
            else:
                _write_list(file, entries)
        file.write("}")
    os.replace(part, path)


def _write_list(file: Any, entries: Iterable[dict[str, Any]]) -> None:
    file.write("[")
    for i, entry in enumerate(entries):
        file.write((", " if i else "") + json.dumps(entry))
    file.write("]")
