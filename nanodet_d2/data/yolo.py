"""YOLO annotations (a folder of text files) in the form of a COCO file's content."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .files import Problems, find_images, listed_image_size, relative_files
from .formats import looks_like


def read_yolo(folder: str, images: str, classes: Sequence[str]) -> dict[str, Any]:
    """Read the text file of every image below ``images``, by path.

    A line is ``class centre_x centre_y width height``, the last four as shares of the image's
    size; words after them are ignored. An image without a file has no boxes.

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

    content: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": i, "name": name} for i, name in enumerate(classes)],
        "problems": problems,
    }
    for image_id, (stem, image) in enumerate(sorted(known_images.items()), start=1):
        size = listed_image_size(Path(images) / image, problems)
        if size is None:
            continue
        entry = {"id": image_id, "file_name": image, "height": size[0], "width": size[1]}
        content["images"].append(entry)
        if stem not in files:
            continue
        try:
            lines = (Path(folder) / f"{stem}.txt").read_text(encoding="utf-8-sig").splitlines()
        except (ValueError, OSError) as error:
            problems.add("text files that cannot be read, left out", f"{stem}.txt: {error}")
            continue
        for number, line in enumerate(lines, start=1):
            parsed = _parse(line, len(classes), size)
            if isinstance(parsed, str):
                problems.add(parsed, f"{stem}.txt line {number}: {line[:60]!r}")
            elif parsed is not None:
                category, box = parsed
                content["annotations"].append(
                    {
                        "id": len(content["annotations"]) + 1,
                        "image_id": image_id,
                        "category_id": category,
                        "bbox": box,
                    }
                )
    return content


def _parse(
    line: str, num_classes: int, size: tuple[int, int]
) -> tuple[int, list[float]] | str | None:
    """Class and XYWH in pixels of a line, None of a blank one, or what is wrong with it."""
    words = line.split()
    if not words:
        return None
    try:
        category, (x, y, w, h) = int(words[0]), (float(word) for word in words[1:5])
    except ValueError:
        return "lines that are not a class and four numbers, dropped"
    if not 0 <= category < num_classes:
        return "lines of an unknown class, dropped"
    height, width = size
    return category, [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
