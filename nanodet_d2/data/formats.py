"""Which annotation format a file or folder looks like, for messages."""

from __future__ import annotations

import collections
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

COCO = "COCO (data.train.json)"
VOC = "Pascal VOC (data.train.voc, the folder of its XML files)"
YOLO = "YOLO (data.train.yolo, the folder of its text files)"
CVAT = "CVAT's XML"
UNKNOWN = "no format that is known here"
_SAMPLE_BYTES = 4096
_SAMPLE_FILES = 1000
_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
_YOLO_LINE = re.compile(rf"\s*\d+(?:\.0*)?(?:\s+{_NUMBER}){{4,}}\s*")

_Table = tuple[tuple[set[str], str], ...]
# Keys of an object -> what writes them; the first whose keys are all there.
_OBJECTS: _Table = (
    ({"images", "annotations", "categories"}, COCO),
    ({"shapes", "imagePath"}, "labelme, one file per image: convert it to COCO"),
    ({"_via_img_metadata"}, "a VIA project: export it as COCO"),
    ({"images", "categories"}, "COCO without annotations, as of a test set"),
    ({"images", "annotations"}, "COCO without categories, as of captions"),
    ({"features", "type"}, "GeoJSON"),
    ({"names", "train"}, "the description of a YOLO data set"),
)
# Keys of the objects in a list.
_LISTS: _Table = (
    ({"image_id", "category_id", "score"}, "COCO results, which are detections and no truth"),
    ({"image", "annotations"}, "CreateML: convert it to COCO"),
    ({"id", "data"}, "a Label Studio export: export it as COCO"),
)


def json_looks_like(content: Any) -> str | None:
    """The format of a json file's content; None if it is none that is known here."""
    table = _OBJECTS
    if isinstance(content, list) and content:
        content, table = content[0], _LISTS
    if not isinstance(content, Mapping):
        return None
    return next((name for keys, name in table if keys <= content.keys()), None)


def looks_like(path: str) -> str:
    """The format of an annotation file or folder, by its name and its first bytes."""
    if os.path.isdir(path):
        return _folder_looks_like(Path(path))
    if not os.path.isfile(path):
        return UNKNOWN
    with open(path, "rb") as file:
        start = file.read(_SAMPLE_BYTES)
    if not start.strip():
        return "an empty file"
    text = start.decode("utf-8", errors="replace").lstrip("\ufeff \t\r\n")
    if "\0" in text:
        return "a binary file"
    if text.startswith("<"):
        if "<annotations" in text:
            return f"{CVAT}: export it as COCO, Pascal VOC or YOLO"
        return f"one file of {VOC}" if "<annotation" in text else "an XML file"
    lines = text.splitlines()
    if text[0] in "{[":
        if len(lines) > 1 and _parsed(lines[0]) is not None:
            return "several json objects, one a line"
        return json_looks_like(_parsed(text)) or "a json file"
    if _YOLO_LINE.fullmatch(lines[0]):
        return f"one file of {YOLO}"
    if re.search(r"^(names|nc|train)\s*:", text, re.MULTILINE):
        return "the description of a YOLO data set"
    return "a table (CSV)" if lines[0].count(",") >= 4 else UNKNOWN


def is_yolo_line(path: Path) -> bool:
    """Whether a text file's first line is one of YOLO's."""
    with open(path, "rb") as file:
        lines = file.read(_SAMPLE_BYTES).decode("utf-8-sig", errors="replace").split("\n", 1)
    return bool(_YOLO_LINE.fullmatch(lines[0].rstrip("\r")))


def _parsed(text: str) -> Any:
    """Content of a json text; None if it is none, or only the start of one."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _folder_looks_like(folder: Path) -> str:
    counts: collections.Counter[str] = collections.Counter()
    xml = ""
    for root, _, names in os.walk(folder):
        counts.update(os.path.splitext(name)[1].lower() for name in names)
        for name in names:
            path = os.path.join(root, name)
            if name.lower().endswith(".json") and os.path.isfile(path):
                return f"a folder with {looks_like(path)}, {name}"
            if name.lower().endswith(".xml") and os.path.isfile(path):
                xml = xml or looks_like(path)
        if sum(counts.values()) > _SAMPLE_FILES:
            break
    if counts[".xml"]:
        return xml if xml.startswith(CVAT) else VOC
    if counts[".txt"]:
        return YOLO
    return "an empty folder" if not counts else f"a folder of {counts.most_common(1)[0][0]} files"
