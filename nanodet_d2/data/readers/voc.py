"""Pascal VOC: an XML file for each image, beside it or in a folder of their own.

What becomes of odd objects is a table in ``projects/nanodet_plus/ANNOTATIONS.md``.
"""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from nanodet_d2.runtime.files import IMAGE_SUFFIXES, relative_files

from ..files import Problems, find_images, listed_image_size
from ..formats import VOC, looks_like
from .content import Content, box_around
from .source import Layout, Source, files_in, folders_in, has_files, split_folders

_XML = (".xml",)
_LOOKED_AT = 20  # XML files of a folder, to tell whether they are of Pascal VOC
_LISTS = ("train", "val", "trainval", "test")  # of ImageSets/Main; others are of a class


def read(source: Source) -> dict[str, Any]:
    """The content of a source's files."""
    return read_voc(
        source.annotations,
        source.images,
        source.classes,
        listed=_listed(source.listed) if source.listed else None,
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
        listed: paths of the XML files that count, without suffix; all of them if None.
        ignore_difficult: ``difficult`` objects become COCO's ``iscrowd``; else they count too.

    Returns:
        ``images``, ``annotations`` and ``categories`` as in a COCO file, and ``problems``.

    Raises:
        ValueError: if there is no XML file, or none of them names an object.
    """
    problems = Problems()
    parsed = _annotated_images(folder, images, problems)
    names = list(classes or sorted({x for _, _, root in parsed for x in _names(root)}))
    if not names:
        found = f"; found: {problems}" if problems else ""
        raise ValueError(f"data set {folder} names no object; give data.classes{found}")
    content = Content(names, first_id=1, problems=problems)
    index = {name: i for i, name in enumerate(names)}
    if listed is not None:
        parsed = _only(parsed, listed, problems)
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


def _listed(files: Sequence[str]) -> set[str]:
    """The first word of each line: those of a class tell in a second whether it is there."""
    lines = [x for path in files for x in Path(path).read_text(encoding="utf-8-sig").splitlines()]
    return {line.split()[0] for line in lines if line.strip()}


def _only(parsed: Sequence[_Parsed], listed: Collection[str], problems: Problems) -> list[_Parsed]:
    """Those that are listed."""
    stems = {relative.with_suffix("").as_posix() for relative, _, _ in parsed}
    for name in sorted(set(listed) - stems):
        problems.add("listed images without their file or their image, left out", name)
    return [x for x in parsed if x[0].with_suffix("").as_posix() in listed]


# Path of a file, path of its image, both relative to their folders; content.
_Parsed = tuple[Path, str, ElementTree.Element]


def _annotated_images(folder: str, images: str, problems: Problems) -> list[_Parsed]:
    """All files of annotations whose image is there, by path."""
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
    return parsed


def _image_of(root: ElementTree.Element, relative: Path, known: dict[str, str]) -> str | None:
    """Path of a file's image, relative to the image folder."""
    named = Path((root.findtext("filename") or relative.stem).strip()).stem
    for stem in (named, relative.stem):
        found = known.get((relative.parent / stem).as_posix())
        if found is not None:
            return found
    return None


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


def recognise(folder: Path) -> list[Layout]:
    """The layouts of this kind that a folder may be: none or one."""
    for place in (
        folder,
        *folders_in(folder),
        *(y for x in folders_in(folder) for y in folders_in(x)),
    ):
        if (place / "JPEGImages").is_dir() and (place / "Annotations").is_dir():
            return [_devkit(place)]
    splits = {}
    for name, place in split_folders(folder).items():
        source = _in_one_folder(place)
        if source is not None:
            splits[name] = source
    if splits:
        return [Layout("voc", "Pascal VOC, a folder a split", splits)]
    source = _in_one_folder(folder)
    return [Layout("voc", "Pascal VOC", {"train": source})] if source else []


def _devkit(folder: Path) -> Layout:
    """With ``Annotations``, ``JPEGImages`` and, maybe, ``ImageSets/Main/*.txt``."""
    files = str(folder / "Annotations"), str(folder / "JPEGImages")
    sets = folder / "ImageSets" / "Main"
    lists = [sets / f"{name}.txt" for name in _LISTS if (sets / f"{name}.txt").is_file()]
    if not lists:
        return Layout("voc", "Pascal VOC's devkit without lists", {"train": Source("voc", *files)})
    splits = {path.stem: Source("voc", *files, listed=(str(path),)) for path in lists}
    if "train" not in splits and "trainval" in splits:
        splits["train"] = splits["trainval"]
    return Layout("voc", "Pascal VOC's devkit with split lists", splits)


def _in_one_folder(folder: Path) -> Source | None:
    """XML files and images together in a folder, or each in a folder below it."""
    source = _by_suffixes(folder)
    return source if source is not None and _is_voc(Path(source.annotations)) else None


def _is_voc(folder: Path) -> bool:
    """Whether there is a file of Pascal VOC among the first: others write XML as well."""
    files = relative_files(str(folder), _XML)[:_LOOKED_AT]
    return any(VOC in looks_like(str(folder / path)) for path in files)


def _by_suffixes(folder: Path) -> Source | None:
    if files_in(folder, _XML) and files_in(folder, IMAGE_SUFFIXES):
        return Source("voc", str(folder), str(folder))
    places = folders_in(folder)
    annotations = [x for x in places if has_files(x, _XML)]
    images = [x for x in places if has_files(x, IMAGE_SUFFIXES)]
    if files_in(folder, _XML):
        annotations = [folder]
    if files_in(folder, IMAGE_SUFFIXES):
        images = [folder]
    if annotations and annotations == images:  # a folder a class, say, with both in it
        return Source("voc", str(folder), str(folder))
    if len(annotations) == len(images) == 1:
        return Source("voc", str(annotations[0]), str(images[0]))
    return None
