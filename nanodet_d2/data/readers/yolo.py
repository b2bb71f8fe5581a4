"""YOLO annotations (a folder of text files) in the form of a COCO file's content.

What becomes of odd lines is a table in ``projects/nanodet_plus/ANNOTATIONS.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nanodet_d2.runtime.files import relative_files

from ..files import Problems, find_images, listed_image_size
from ..formats import looks_like
from .content import Content, box_around

# Shares of the image's size that a number may lie outside it: boxes reach beyond by rounding and
# by augmentation, while pixels and percent lie far off.
_OVERSHOOT = 0.5


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
    if not classes:
        raise ValueError(f"data set {folder} needs data.classes, the names in YOLO's order")
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
    content = Content(classes, first_id=0, problems=problems)
    for stem, image in sorted(known_images.items()):
        size = listed_image_size(Path(images) / image, problems)
        if size is None:
            continue
        content.add_image(image, size)
        lines = _lines(Path(folder), f"{stem}.txt", problems) if stem in files else []
        for number, line in enumerate(lines, start=1):
            where = f"{stem}.txt line {number}: {line[:60]!r}"
            parsed = _parse(line, len(classes), problems, where)
            if parsed is not None:
                category, (x, y, w, h) = parsed
                content.add_box(category, [x * size[1], y * size[0], w * size[1], h * size[0]])
    return content.as_coco()


def _lines(folder: Path, name: str, problems: Problems) -> list[str]:
    try:
        return (folder / name).read_text(encoding="utf-8-sig").splitlines()
    except (ValueError, OSError) as error:
        problems.add("text files that cannot be read, left out", f"{name}: {error}")
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
