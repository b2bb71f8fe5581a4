"""YOLO: a text file for each image, and ``data.yaml``, which names splits and classes.

What becomes of odd lines is a table in ``projects/nanodet_plus/ANNOTATIONS.md``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nanodet_d2.runtime.files import IMAGE_SUFFIXES, relative_files

from ..files import Problems, find_images, listed_image_size
from ..formats import looks_like
from .content import Content, box_around
from .source import Source, lines_of

# Shares of the image's size that a number may lie outside it: boxes reach beyond by rounding and
# by augmentation, while pixels and percent lie far off.
_OVERSHOOT = 0.5


def read(source: Source) -> dict[str, Any]:
    """The content of a source's files."""
    if not source.listed:
        return read_yolo(source.annotations, source.images, source.classes)
    _require_classes(source.classes, source.annotations)
    problems = Problems()
    labels = _labels_of_listed(source, problems)
    if not labels:
        found = f"; found: {problems}" if problems else ""
        raise ValueError(f"{', '.join(source.listed)} has none of its images{found}")
    if not any(label.is_file() for label in labels.values()):
        raise ValueError(
            f"{source.annotations}: none of the {len(labels)} images of {', '.join(source.listed)} "
            "has a .txt file, beside it or in the folder labels beside images"
        )
    return _content(source.images, labels, source.classes, problems)


def read_yolo(folder: str, images: str, classes: Sequence[str]) -> dict[str, Any]:
    """Read the text file of every image below ``images``, by path.

    A line is ``class centre_x centre_y width height``, or ``class x1 y1 x2 y2 x3 y3 …`` of a
    polygon or a rotated box, of which the upright box around it is taken; all as shares of the
    image's size. An image without a file has no boxes.

    Args:
        folder: of the text files, e.g. ``labels/train``.
        images: the folder that mirrors it, e.g. ``images/train``.
        classes: names; a line's class is an index into them.

    Returns:
        ``images``, ``annotations`` and ``categories`` as in a COCO file, and ``problems``.

    Raises:
        ValueError: if there are no classes or no images, or a folder of text files without one.
    """
    _require_classes(classes, folder)
    known_images = find_images(images)
    if not known_images:
        raise ValueError(f"image folder {images} has no images")
    files = {x.with_suffix("").as_posix() for x in relative_files(folder, [".txt"])}
    if not files & set(known_images):
        raise ValueError(
            f"data set {folder} has no .txt file of an image in {images}; "
            f"it looks like {looks_like(folder)}"
        )
    problems = Problems()
    for orphan in sorted(files - set(known_images) - {"classes", "labels"}):
        problems.add("text files without their image, left out", f"{orphan}.txt")
    labels = {image: Path(folder, f"{stem}.txt") for stem, image in sorted(known_images.items())}
    return _content(images, labels, classes, problems)


def _require_classes(classes: Sequence[str], source: str) -> None:
    if not classes:
        raise ValueError(f"data set {source} needs data.classes, the names in YOLO's order")


def _content(
    images: str, labels: Mapping[str, Path], classes: Sequence[str], problems: Problems
) -> dict[str, Any]:
    """COCO content of images, whose paths are relative to their folder, each with its text file."""
    content = Content(classes, first_id=0, problems=problems)
    for image, label in labels.items():
        size = listed_image_size(Path(images, image), problems)
        if size is None:
            continue
        content.add_image(image, size)
        for number, line in enumerate(_lines(label, problems), start=1):
            where = f"{label.name} line {number}: {line[:60]!r}"
            parsed = _parse(line, len(classes), problems, where)
            if parsed is not None:
                category, (x, y, w, h) = parsed
                content.add_box(category, [x * size[1], y * size[0], w * size[1], h * size[0]])
    return content.as_coco()


def _labels_of_listed(source: Source, problems: Problems) -> dict[str, Path]:
    """Image, relative to the source's folder -> its text file, which need not be there."""
    root, found = Path(source.images), {}
    for image in _listed_images(source, problems):
        found[os.path.relpath(image, root)] = _label_of(image)
    return dict(sorted(found.items()))


def _listed_images(source: Source, problems: Problems) -> Iterator[Path]:
    for entry in map(Path, source.listed):
        if entry.is_dir():
            yield from (entry / x for x in relative_files(str(entry), IMAGE_SUFFIXES))
            continue
        for name in lines_of(entry):
            places = [Path(source.images, name), entry.parent / name]
            image = next((x for x in places if x.is_file()), None)
            if image is None:
                problems.add("listed images that are missing, left out", name)
            else:
                yield Path(os.path.normpath(image))


def _label_of(image: Path) -> Path:
    """In ``labels`` where the image is in ``images``, else beside it."""
    mirrored = mirrored_labels(image).with_suffix(".txt")
    return mirrored if mirrored.is_file() else image.with_suffix(".txt")


def mirrored_labels(path: Path) -> Path:
    """With ``labels`` in place of the last ``images`` of a path; itself without one."""
    parts = path.parts
    at = max((i for i, part in enumerate(parts) if part == "images"), default=None)
    return path if at is None else Path(*parts[:at], "labels", *parts[at + 1 :])


def _lines(label: Path, problems: Problems) -> list[str]:
    """None where there is no such file: an image without boxes."""
    try:
        return label.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        return []
    except (ValueError, OSError) as error:
        problems.add("text files that cannot be read, left out", f"{label.name}: {error}")
        return []


def _parse(
    line: str, num_classes: int, problems: Problems, where: str
) -> tuple[int, list[float]] | None:
    """Class and XYWH (shares of the image's size) of a line; None of a blank or a wrong one."""
    words = line.split()
    if not words:
        return None
    try:
        category, *numbers = map(float, words)
    except ValueError:
        category, numbers = 0.0, []
    is_polygon = len(numbers) >= 6 and len(numbers) % 2 == 0
    if "," in line:  # between numbers or inside them: the same line may be either
        problems.add("lines with commas in place of spaces or points, dropped", where)
    elif not category.is_integer() or not (is_polygon or len(numbers) in (4, 5)):
        problems.add("lines that are not a class and four numbers, dropped", where)
    elif not 0 <= category < num_classes:
        problems.add("lines of an unknown class, dropped", where)
    elif len(numbers) == 5 and not 0 <= numbers[4] <= 1:
        problems.add("lines with a fifth number that is no confidence, dropped", where)
    elif not all(-_OVERSHOOT <= x <= 1 + _OVERSHOOT for x in numbers):  # NaN is not, either
        problems.add("lines of numbers that are not shares of the image's size, dropped", where)
    elif is_polygon:
        problems.add("polygons, turned into their boxes", where)
        return int(category), box_around(numbers[0::2], numbers[1::2])
    else:
        if len(numbers) == 5:
            problems.add("lines with a confidence, which is left out", where)
        x, y, w, h = numbers[:4]
        return int(category), [x - w / 2, y - h / 2, w, h]
    return None
