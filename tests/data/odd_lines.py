"""Odd but real lines of each layout, and what becomes of them.

Run as a program it writes ``projects/nanodet_plus/ANNOTATIONS.md``, whose tables these are.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from PIL import Image

WIDTH, HEIGHT = 100, 50  # of the image
CLASSES = ["cat", "dog"]
PAGE = Path(__file__).resolve().parents[2] / "projects" / "nanodet_plus" / "ANNOTATIONS.md"
PLAIN = [20.0, 10.0, 60.0, 30.0]  # XYXY


class Case(NamedTuple):
    """One line, or file, as it is written."""

    written: str
    becomes: str
    boxes: list[list[float]]  # XYXY, pixels
    problems: dict[str, int] = {}  # beside `becomes`, what the log and the doctor say
    images: int = 1
    category: int = 0


_NO_BOX = "lines that are not a class and four numbers, dropped"
_COMMAS = "lines with commas in place of spaces or points, dropped"
_NO_SHARES = "lines of numbers that are not shares of the image's size, dropped"
_POLYGONS = "polygons, turned into their boxes"
_UNKNOWN = "lines of an unknown class, dropped"

YOLO = [
    Case("0 0.4 0.4 0.4 0.4", "the box", [PLAIN]),
    Case("0 0.4 0.4 0.4 0.4 0.93", "the box, without the confidence", [PLAIN],
         {"lines with a confidence, which is left out": 1}),
    Case("0 0.4 0.4 0.4 0.4 17", "nothing: a fifth number above 1 is no confidence", [],
         {"lines with a fifth number that is no confidence, dropped": 1}),
    Case("0 0.2 0.2 0.6 0.3 0.5 0.6", "a polygon: the upright box around it", [PLAIN],
         {_POLYGONS: 1}),
    Case("0 0.4 0.2 0.6 0.4 0.4 0.6 0.2 0.4", "a rotated box by its corners: the same", [PLAIN],
         {_POLYGONS: 1}),
    Case("0 0.4 0.4 0.4 0.4 0.5 0.5", "the same: keypoints without a flag, and the number of a "
         "track after a confidence, cannot be told from a polygon", [[40, 20, 50, 25]],
         {_POLYGONS: 1}),
    Case("0 0.2 0.2 0.6 0.2 0.6 0.6 0.2", "nothing: an odd count of 7 numbers and more", [],
         {_NO_BOX: 1}),
    Case("0 0.4 0.4", "nothing: fewer than four numbers", [], {_NO_BOX: 1}),
    Case("0 40 40 40 40", "nothing: percent or pixels, no shares", [], {_NO_SHARES: 1}),
    Case("0 0.9 0.4 0.4 0.4", "the box, clipped to the image", [[70, 10, 100, 30]],
         {"boxes reaching beyond their image, clipped": 1}),
    Case("0 0.4 0.4 0 0.4", "nothing: no area", [],
         {"boxes narrower or lower than 1 px, dropped": 1}),
    Case("0 nan 0.4 0.4 0.4", "nothing", [], {_NO_SHARES: 1}),
    Case("0 0,4 0,4 0,4 0,4", "nothing: decimal commas", [], {_COMMAS: 1}),
    Case("0,0.4,0.4,0.4,0.4", "nothing: commas between the numbers", [], {_COMMAS: 1}),
    Case("0\t0.4\t0.4\t0.4\t0.4 ", "the box: tabs and spaces are the same", [PLAIN]),
    Case("1.0 0.4 0.4 0.4 0.4", "the box: whole numbers as exports write them", [PLAIN],
         category=1),
    Case("0.5 0.4 0.4 0.4 0.4", "nothing: no class", [], {_NO_BOX: 1}),
    Case("-1 0.4 0.4 0.4 0.4", "nothing: a negative class", [], {_UNKNOWN: 1}),
    Case("2 0.4 0.4 0.4 0.4", "nothing: the class beyond the last of `data.classes`", [],
         {_UNKNOWN: 1}),
    Case("cat 0.4 0.4 0.4 0.4", "nothing: a name in place of the class's number", [],
         {_NO_BOX: 1}),
    Case("0 0.4 0.4 0.4 0.4\r\n\r\n0 0.4 0.4 0.4 0.4\r\n",
         "two boxes: Windows line ends and blank lines are none", [PLAIN, PLAIN]),
    Case("\ufeff0 0.4 0.4 0.4 0.4", "the box: a byte order mark is none", [PLAIN]),
    Case("", "an image without boxes, which teaches the background", []),
]  # fmt: skip

_BNDBOX = "<bndbox><xmin>20</xmin><ymin>10</ymin><xmax>60</xmax><ymax>30</ymax></bndbox>"
_SMALL = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
_NO_NUMBERS = "objects whose box is not of numbers, dropped"
_NONE = "objects without a box, dropped"

VOC = [
    Case(_BNDBOX, "the box, its numbers as they are (VOC's own count from 1, others from 0)",
         [PLAIN]),
    Case("<robndbox><cx>40</cx><cy>20</cy><w>20</w><h>40</h><angle>1.5707963</angle></robndbox>",
         "a rotated box of roLabelImg, by radians: the upright box around it", [PLAIN],
         {"rotated boxes, turned into upright ones": 1}),
    Case("<robndbox><cx>40</cx><cy>20</cy><w>20</w><h>40</h><angle>90</angle></robndbox>",
         "nothing: no radians", [], {_NO_NUMBERS: 1}),
    Case("<polygon><x1>20</x1><y1>10</y1><x2>60</x2><y2>15</y2><x3>50</x3><y3>30</y3></polygon>",
         "the upright box around it", [PLAIN], {_POLYGONS: 1}),
    Case("<polygon><pt><x>20</x><y>10</y></pt><pt><x>60</x><y>15</y></pt><pt><x>50</x><y>30</y>"
         "</pt></polygon>", "the same, as LabelMe writes it", [PLAIN], {_POLYGONS: 1}),
    Case("<polygon><x1>20</x1><y1>10</y1><x2>60</x2><y2>15</y2></polygon>",
         "nothing: fewer than three points", [], {_NO_NUMBERS: 1}),
    Case(f"{_BNDBOX}<polygon><x1>1</x1><y1>1</y1></polygon>", "the box", [PLAIN]),
    Case("<bndbox><xmin>60</xmin><ymin>30</ymin><xmax>20</xmax><ymax>10</ymax></bndbox>",
         "the box", [PLAIN], {"boxes whose corners are swapped, put in order": 1}),
    Case(f"<part><name>head</name>{_SMALL}</part>{_BNDBOX}",
         "the box: those of its parts are not its own", [PLAIN]),
    Case(f"<part><name>head</name>{_SMALL}</part>", "nothing", [], {_NONE: 1}),
    Case(f"{_BNDBOX}{_SMALL}", "the first of them", [PLAIN],
         {"objects with several boxes, of which the first counts": 1}),
    Case("<bndbox><xmin>20,0</xmin><ymin>10</ymin><xmax>60</xmax><ymax>30</ymax></bndbox>",
         "nothing: a comma may stand for a point or for thousands", [], {_NO_NUMBERS: 1}),
    Case("<bndbox><xmin>20</xmin><ymin>10</ymin><xmax>60</xmax></bndbox>",
         "nothing: three numbers", [], {_NO_NUMBERS: 1}),
    Case("<bndbox><xmin>nan</xmin><ymin>10</ymin><xmax>60</xmax><ymax>30</ymax></bndbox>",
         "nothing", [], {"boxes that are not finite, dropped": 1}),
    Case("<bndbox><xmin>0.2</xmin><ymin>0.2</ymin><xmax>0.6</xmax><ymax>0.6</ymax></bndbox>",
         "nothing: shares of the image's size are less than a pixel", [],
         {"boxes narrower or lower than 1 px, dropped": 1}),
    Case("<bndbox><xmin>20</xmin><ymin>20</ymin><xmax>60</xmax><ymax>60</ymax></bndbox>",
         "percent, which cannot be told from pixels: here clipped", [[20, 20, 60, 50]],
         {"boxes reaching beyond their image, clipped": 1}),
    Case(f"<difficult>1</difficult>{_BNDBOX}", "the box, like any other, in evaluation "
         "too; with `data.difficult=ignore` it neither teaches nor counts",
         [PLAIN]),
    Case(f"<deleted>1</deleted>{_BNDBOX}", "nothing: LabelMe keeps what was removed", [],
         {"objects that are marked as deleted, left out": 1}),
    Case("", "nothing: no box at all", [], {_NONE: 1}),
    Case(f"<annotation>\r\n<object>\r\n<name> cat </name>{_BNDBOX}</object>\r\n</annotation>\r\n",
         "the box: Windows line ends and spaces around names are none, and an image's size that "
         "is missing or 0 is read from the image", [PLAIN]),
    Case("\ufeff<annotation/>", "an image without boxes; a byte order mark is none", []),
    Case("an empty file", "its image is left out", [], {"files that are not XML, left out": 1},
         images=0),
]  # fmt: skip

_UNREADABLE = "boxes that are not four numbers, dropped"
_AROUND = "annotations without a box, which get that around their polygons"

COCO = [
    Case('"bbox": [20, 10, 40, 20]', "the box", [PLAIN]),
    Case('"bbox": ["20", "10", "40.0", "20"]', "the box: words that are numbers", [PLAIN]),
    Case('"bbox": ["20,0", "10", "40", "20"]', "nothing", [], {_UNREADABLE: 1}),
    Case('"segmentation": [[20, 10, 60, 15, 50, 30]]', "the box around all polygons", [PLAIN],
         {_AROUND: 1}),
    Case('"bbox": [], "segmentation": [[20, 10, 30, 10, 25, 30], [50, 15, 60, 15, 55, 20]]',
         "the same", [PLAIN], {_AROUND: 1}),
    Case('"segmentation": {"counts": [500, 9], "size": [50, 100]}',
         "nothing: a run-length mask without a box", [], {_UNREADABLE: 1}),
    Case('"bbox": [20, 10, 40, 20], "segmentation": {"counts": [500, 9], "size": [50, 100]}',
         "the box", [PLAIN]),
    Case('"bbox": [40, 20, 40, 20, 30]', "nothing: a rotated box by five numbers", [],
         {_UNREADABLE: 1}),
    Case('"bbox": [20, 10, 60, 30]', "the box; were it x1, y1, x2, y2, nobody could tell, but "
         "for many boxes that reach beyond their image", [[20, 10, 80, 40]]),
    Case('"bbox": [70, 10, 60, 30]', "the box, clipped to the image", [[70, 10, 100, 40]],
         {"boxes reaching beyond their image, clipped": 1}),
    Case('"bbox": [60, 30, -40, -20]', "nothing: a negative width", [],
         {"boxes narrower or lower than 1 px, dropped": 1}),
    Case('"bbox": [20, 10, NaN, 20]', "nothing", [], {"boxes that are not finite, dropped": 1}),
    Case('"bbox": [0.2, 0.2, 0.4, 0.4]', "nothing: shares of the image's size", [],
         {"boxes narrower or lower than 1 px, dropped": 1}),
    Case('"bbox": [20, 10, 40, 20], "area": 0', "nothing", [],
         {"annotations of area 0, dropped": 1}),
    Case('"bbox": [20, 10, 40, 20], "area": null, "score": 1, "keypoints": []',
         "the box: other keys are not looked at", [PLAIN]),
    Case('"bbox": [20, 10, 40, 20], "iscrowd": 1',
         "a region to ignore: nothing to learn, to find or to miss there", [PLAIN]),
    Case('"bbox": [20, 10, 40, 20], "iscrowd": 0, "ignore": 1', "the same", [PLAIN]),
    Case('"bbox": [20, 10, 40, 20], "id": -1',
         "the box; numbered anew for the evaluation, where pycocotools takes an id below 1 for "
         "a missed object, and knows only the last of an id that is there twice", [PLAIN]),
    Case('"bbox": [20, 10, 40, 20], "category_id": -1', "nothing, unless a category has that id",
         [], {"annotations of an unknown category, dropped": 1}),
    Case('"bbox": [20, 10, 40, 20], "image_id": "1"', "nothing: a word is no number", [],
         {"annotations of an unknown image, dropped": 1}),
    Case('"bbox": [20, 10, 40, 20], "image_id": 1.0', "the box", [PLAIN]),
    Case('\ufeff"bbox": [20, 10, 40, 20]', "the box: a byte order mark at the file's start, and "
         "Windows line ends, are none", [PLAIN]),
]  # fmt: skip

LAYOUTS = {"yolo": YOLO, "voc": VOC, "json": COCO}


def write_data_set(form: str, case: Case, folder: Path) -> dict:
    """Write an image with the case as its annotation; the ``data`` section of a config."""
    images = folder / "images"
    images.mkdir(exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT)).save(images / "a.png")
    Image.new("RGB", (WIDTH, HEIGHT)).save(images / "b.png")
    path = folder / form
    if form != "json":
        path.mkdir(exist_ok=True)
    if form == "yolo":
        (path / "a.txt").write_bytes(case.written.encode())
    elif form == "voc":
        text = f"<annotation><object><name>cat</name>{case.written}</object></annotation>"
        if "<annotation" in case.written:
            text = case.written
        (path / "a.xml").write_bytes(b"" if case.written == "an empty file" else text.encode())
    else:
        path.write_text(_coco(case.written), encoding="utf-8")
    source = {"name": "", form: str(path), "images": str(images)}
    return {"train": source, "val": source, "classes": None if form == "json" else CLASSES}


def _coco(written: str) -> str:
    start = "\ufeff" if written.startswith("\ufeff") else ""
    given = json.loads("{" + written.removeprefix("\ufeff") + "}")
    annotation = {"id": 1, "image_id": 1, "category_id": 1, **given}
    images = [{"id": 1, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}]
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES, start=1)]
    content = {"images": images, "annotations": [annotation], "categories": categories}
    return start + json.dumps(content)


_INTRODUCTION = """# Odd lines of annotation files

What becomes of lines that are odd but real, in each of the three layouts. The examples belong to
an image of 100 x 50 pixels, and "the box" is the one from (20, 10) to (60, 30). What stands in the
last column is counted in one line of the log when the data set is read, with the first place; the
doctor reports the same, as problems. "Nothing" means: the line is dropped, and its image stays.

Written by `python tests/data/odd_lines.py`; `tests/data/test_odd_lines.py` runs each row.
"""
_TITLES = {
    "yolo": ("YOLO (`data.train.yolo`)", "line or file"),
    "voc": ("Pascal VOC (`data.train.voc`)", "in `<object>`, after `<name>`; or the whole file"),
    "json": ("COCO (`data.train.json`)", "in the annotation, beside its ids"),
}


def page() -> str:
    """The text of the page."""
    parts = [_INTRODUCTION]
    for form, cases in LAYOUTS.items():
        title, what = _TITLES[form]
        parts.append(f"\n## {title}\n\n| {what} | what becomes of it | said |\n|---|---|---|\n")
        for case in cases:
            written = case.written.encode("unicode_escape").decode()
            shown = f"`{written}`" if written else "nothing at all"
            parts.append(f"| {shown} | {case.becomes} | {'; '.join(case.problems)} |\n")
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
