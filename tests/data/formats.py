"""Writes a COCO data set as Pascal VOC and as YOLO."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any


def write_voc(content: dict[str, Any], folder: Path) -> None:
    """One XML file per image, with coordinates in full precision."""
    names = {x["id"]: x["name"] for x in content["categories"]}
    for image in content["images"]:
        root = ElementTree.Element("annotation")
        ElementTree.SubElement(root, "filename").text = Path(image["file_name"]).name
        size = ElementTree.SubElement(root, "size")
        for key in ("width", "height"):
            ElementTree.SubElement(size, key).text = str(image[key])
        for annotation in _of(content, image):
            item = ElementTree.SubElement(root, "object")
            ElementTree.SubElement(item, "name").text = names[annotation["category_id"]]
            x, y, w, h = annotation["bbox"]
            box = ElementTree.SubElement(item, "bndbox")
            for key, value in (("xmin", x), ("ymin", y), ("xmax", x + w), ("ymax", y + h)):
                ElementTree.SubElement(box, key).text = repr(value)
        path = (folder / image["file_name"]).with_suffix(".xml")
        path.parent.mkdir(parents=True, exist_ok=True)
        ElementTree.ElementTree(root).write(path, encoding="utf-8")


def write_yolo(content: dict[str, Any], folder: Path) -> list[str]:
    """One text file per image with boxes, six digits each; the names in the files' order."""
    ids = sorted(x["id"] for x in content["categories"])
    names = {x["id"]: x["name"] for x in content["categories"]}
    for image in content["images"]:
        lines = []
        for annotation in _of(content, image):
            x, y, w, h = annotation["bbox"]
            width, height = image["width"], image["height"]
            shares = ((x + w / 2) / width, (y + h / 2) / height, w / width, h / height)
            category = ids.index(annotation["category_id"])
            lines.append(" ".join([str(category), *(f"{v:.6f}" for v in shares)]))
        if lines:
            path = (folder / image["file_name"]).with_suffix(".txt")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(lines) + "\n")
    return [names[key] for key in ids]


def _of(content: dict[str, Any], image: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        x
        for x in content["annotations"]
        if x["image_id"] == image["id"] and not x.get("iscrowd", 0)
    ]
