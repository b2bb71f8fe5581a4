"""Pascal VOC: an XML file for each image, beside it or in a folder of their own.

What becomes of odd objects is a table in ``projects/nanodet_plus/ANNOTATIONS.md``.
"""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from nanodet_d2.runtime.files import relative_files

from ..files import Problems, find_images, listed_image_size
from ..formats import looks_like
from .content import Content, box_around
from .source import Source, lines_of

_PRESENCE = re.compile(r"\s+(-1|0|1)$")


def read(source: Source) -> dict[str, Any]:
    """The content of a source's files."""
    return read_voc(
        source.annotations,
        source.images,
        source.classes,
        listed=_listed(source),
        ignore_difficult=source.ignore_difficult,
    )


def read_voc(
    folder: str,
    images: str,
    classes: Sequence[str] | None = None,
    *,
    listed: Collection[str] | None = None,
    ignore_difficult: bool = False,
) -> dict[str, Any]:
    """Read every XML file below ``folder``, by path.

    The image of a file is ``<filename>`` beside it in the tree of ``images``, else the one of its
    own name. Coordinates are taken as they are. Of polygons and rotated boxes the upright box
    around them is taken.

    Args:
        folder: of the XML files, e.g. ``VOC2007/Annotations``.
        images: the folder that mirrors it, e.g. ``VOC2007/JPEGImages``.
        classes: names in the model's order; if none, those in the files, sorted.
        listed: paths of the XML files that count, without suffix, or with 1, 0 or -1 behind them;
            all files if None.
        ignore_difficult: ``difficult`` objects become COCO's ``iscrowd``; else they count too.

    Returns:
        ``images``, ``annotations`` and ``categories`` as in a COCO file, and ``problems``.

    Raises:
        ValueError: if there is no XML file, or none that is listed, or none names an object.
    """
    problems = Problems()
    parsed = _annotated_images(folder, images, listed, problems)
    names = list(classes or sorted({x for _, _, root in parsed for x in _names(root)}))
    found = f"; found: {problems}" if problems else ""
    if listed is not None and not parsed:
        raise ValueError(f"data set {folder} has none of the listed images{found}")
    if not names:
        raise ValueError(f"data set {folder} names no object; give data.classes{found}")
    content = Content(names, first_id=1, problems=problems)
    index = {name: i for i, name in enumerate(names)}
    for relative, image, root in parsed:
        size = _size(root) or listed_image_size(Path(images) / image, problems)
        if size is None:
            continue
        content.add_image(image, size)
        for item in root.iter("object"):
            name = _text(item, "name")
            if name not in index:
                problems.add("objects of an unknown class, dropped", f"{relative}: {name!r}")
                continue
            box = _box(item, problems, f"{relative}: {name}")
            if box is not None:
                ignored = ignore_difficult and _text(item, "difficult") == "1"
                content.add_box(index[name], box, is_crowd=ignored)
    return content.as_coco()


def _listed(source: Source) -> set[str] | None:
    """The lines of a source's lists, if it has any."""
    lines = {line for path in source.listed for line in lines_of(Path(path))}
    return lines if source.listed else None


def _only(files: Sequence[Path], listed: Collection[str], problems: Problems) -> list[Path]:
    """Those that are listed."""
    stems = {path.with_suffix("").as_posix(): path for path in files}
    # A list of a class tells behind each name whether it is there.
    wanted = {name if name in stems else _PRESENCE.sub("", name) for name in listed}
    for name in sorted(wanted - set(stems)):
        problems.add("listed images without their file, left out", name)
    return [path for stem, path in stems.items() if stem in wanted]


# Path of a file, path of its image, both relative to their folders; content.
_Parsed = tuple[Path, str, ElementTree.Element]


def _annotated_images(
    folder: str, images: str, listed: Collection[str] | None, problems: Problems
) -> list[_Parsed]:
    """The files of annotations whose image is there, by path."""
    files = relative_files(folder, [".xml"])
    if not files:
        raise ValueError(
            f"data set {folder} has no .xml files; needed: Pascal VOC annotations; "
            f"it looks like {looks_like(folder)}"
        )
    if listed is not None:
        files = _only(files, listed, problems)
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
    return parsed


def _image_of(root: ElementTree.Element, relative: Path, known: dict[str, str]) -> str | None:
    """Path of a file's image, relative to the image folder."""
    named = Path((root.findtext("filename") or relative.stem).strip()).stem
    for stem in (named, relative.stem):
        found = known.get((relative.parent / stem).as_posix())
        if found is not None:
            return found
    return None


def names_in(sources: Iterable[Source]) -> set[str]:
    """Classes of all sources' objects; a file is read once, however many lists it is in."""
    lists: dict[tuple[str, str], tuple[str, ...]] = {}
    for source in sources:
        place = source.annotations, source.images
        lists[place] = lists.get(place, ()) + source.listed
    found: set[str] = set()
    for place, listed in lists.items():
        source = Source("voc", *place, listed=listed)
        parsed = _annotated_images(*place, _listed(source), Problems())
        found.update(name for _, _, root in parsed for name in _names(root))
    return found


def _names(root: ElementTree.Element) -> list[str]:
    names = [_text(item, "name") for item in root.iter("object")]
    return [name for name in names if name]


def _text(item: ElementTree.Element, tag: str) -> str:
    return (item.findtext(tag) or "").strip()


def _size(root: ElementTree.Element) -> tuple[int, int] | None:
    """(height, width) as the file tells, or None where it does not."""
    try:
        height, width = (int(float(root.findtext(f"size/{x}", "0"))) for x in ("height", "width"))
    except (ValueError, OverflowError):
        return None
    return (height, width) if 0 < height < 2**31 and 0 < width < 2**31 else None


def _box(item: ElementTree.Element, problems: Problems, where: str) -> list[float] | None:
    """XYWH of an object, in pixels; None, with the problem, where there is none.

    Only what belongs to the object itself: the boxes of its ``<part>`` elements are not its own.
    """
    if _text(item, "deleted") == "1":  # as LabelMe keeps what was removed
        problems.add("objects that are marked as deleted, left out", where)
        return None
    boxes = item.findall("bndbox")
    if len(boxes) > 1:
        problems.add("objects with several boxes, of which the first counts", where)
    try:
        if boxes:
            return _upright(boxes[0], problems, where)
        if (rotated := item.find("robndbox")) is not None:
            box = _around_rotated(rotated)
            problems.add("rotated boxes, turned into upright ones", where)
            return box
        if (polygon := item.find("polygon")) is not None:
            box = _around_polygon(polygon)
            problems.add("polygons, turned into their boxes", where)
            return box
    except ValueError:
        problems.add("objects whose box is not of numbers, dropped", where)
        return None
    problems.add("objects without a box, dropped", where)
    return None


def _upright(box: ElementTree.Element, problems: Problems, where: str) -> list[float]:
    x1, y1, x2, y2 = (float(_text(box, tag)) for tag in ("xmin", "ymin", "xmax", "ymax"))
    if x1 > x2 or y1 > y2:
        problems.add("boxes whose corners are swapped, put in order", where)
        return box_around([x1, x2], [y1, y2])
    return [x1, y1, x2 - x1, y2 - y1]


def _around_rotated(box: ElementTree.Element) -> list[float]:
    """Around roLabelImg's box: its centre, its sides, and its angle in radians."""
    x, y, w, h, angle = (float(_text(box, tag)) for tag in ("cx", "cy", "w", "h", "angle"))
    if not abs(angle) <= 2 * math.pi:
        raise ValueError(f"angle {angle}; allowed: radians")
    cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
    w, h = w * cos + h * sin, w * sin + h * cos
    return [x - w / 2, y - h / 2, w, h]


def _around_polygon(polygon: ElementTree.Element) -> list[float]:
    """Around the points of ``<x1>``, ``<y1>``, ``<x2>``, … or of ``<pt><x/><y/></pt>``."""
    xs, ys = (
        [float(x.text or "") for x in polygon.iter() if re.fullmatch(axis + r"\d*", x.tag)]
        for axis in "xy"
    )
    if len(xs) != len(ys) or len(xs) < 3:
        raise ValueError(f"polygon of {len(xs)} x and {len(ys)} y; needed: three points")
    return box_around(xs, ys)
