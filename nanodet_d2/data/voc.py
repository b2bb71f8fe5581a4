"""Pascal VOC annotations (a folder of XML files) in the form of a COCO file's content."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .files import Problems, find_images, listed_image_size, relative_files
from .formats import looks_like


def read_voc(folder: str, images: str, classes: Sequence[str] | None = None) -> dict[str, Any]:
    """Read every XML file below ``folder``, by path.

    The image of a file is ``<filename>`` beside it in the tree of ``images``, else the one of its
    own name. Coordinates are taken as they are; ``difficult`` objects count like others.

    Args:
        folder: of the XML files, e.g. ``VOC2007/Annotations``.
        images: the folder that mirrors it, e.g. ``VOC2007/JPEGImages``.
        classes: names in the model's order; if None, those in the files, sorted.

    Returns:
        ``images``, ``annotations`` and ``categories`` as in a COCO file, and ``problems``.

    Raises:
        ValueError: if there is no XML file, or none of them names an object.
    """
    problems = Problems()
    files = relative_files(folder, [".xml"])
    if not files:
        raise ValueError(
            f"data set {folder} has no .xml files; needed: Pascal VOC annotations; "
            f"it looks like {looks_like(folder)}"
        )
    known_images = find_images(images)
    parsed = []
    for relative in files:
        try:
            root = ElementTree.parse(Path(folder) / relative).getroot()
        except (ElementTree.ParseError, ValueError, LookupError, OSError) as error:
            problems.add("files that are not XML, left out", f"{relative}: {error}")
            continue
        if root.tag != "annotation":
            guess = looks_like(str(Path(folder) / relative))
            what = f"{relative}: <{root.tag[:40]}>; it looks like {guess}"
            problems.add("files that are not of Pascal VOC, left out", what)
            continue
        image = _image_of(root, relative, known_images)
        if image is None:
            problems.add("files without their image, left out", str(relative))
            continue
        parsed.append((relative, image, root))
    names = list(classes or sorted({x for _, _, root in parsed for x in _names(root)}))
    if not names:
        found = f"; found: {problems}" if problems else ""
        raise ValueError(f"data set {folder} names no object; give data.classes{found}")

    content: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names, start=1)],
        "problems": problems,
    }
    for image_id, (relative, image, root) in enumerate(parsed, start=1):
        size = _size(root) or listed_image_size(Path(images) / image, problems)
        if size is None:
            continue
        entry = {"id": image_id, "file_name": image, "height": size[0], "width": size[1]}
        content["images"].append(entry)
        for item in root.iter("object"):
            name = (item.findtext("name") or "").strip()
            if name not in names:
                problems.add("objects of an unknown class, dropped", f"{relative}: {name!r}")
                continue
            box = _box(item)
            if box is None:
                problems.add("objects without a box, dropped", f"{relative}: {name}")
                continue
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": image_id,
                    "category_id": names.index(name) + 1,
                    "bbox": box,
                }
            )
    return content


def _image_of(root: ElementTree.Element, relative: Path, known: dict[str, str]) -> str | None:
    """Path of a file's image, relative to the image folder."""
    named = Path((root.findtext("filename") or relative.stem).strip()).stem
    for stem in (named, relative.stem):
        found = known.get((relative.parent / stem).as_posix())
        if found is not None:
            return found
    return None


def _names(root: ElementTree.Element) -> list[str]:
    names = [(item.findtext("name") or "").strip() for item in root.iter("object")]
    return [name for name in names if name]


def _size(root: ElementTree.Element) -> tuple[int, int] | None:
    """(height, width) as the file tells, or None where it does not."""
    try:
        height, width = (int(float(root.findtext(f"size/{x}", "0"))) for x in ("height", "width"))
    except (ValueError, OverflowError):
        return None
    return (height, width) if 0 < height < 2**31 and 0 < width < 2**31 else None


def _box(item: ElementTree.Element) -> list[float] | None:
    """XYWH of an object."""
    try:
        x1, y1, x2, y2 = (
            float(item.findtext(f"bndbox/{x}", "")) for x in ("xmin", "ymin", "xmax", "ymax")
        )
    except ValueError:
        return None
    return [x1, y1, x2 - x1, y2 - y1]
