"""One small data set, and what its writers in every layout share.

Boxes have whole numbers, so that every layout tells them exactly.
"""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from tests.data.formats import write_voc, write_yolo

CLASSES = ["Ein Würfel", "traffic light", "狗"]  # sorted, as Pascal VOC's are
SPLITS = {"train": 6, "val": 3, "test": 3}
IDS = (7, 12, 90)  # of the categories in COCO files
_TURNED = {0x0112: 6}  # EXIF: a quarter turn

Box = tuple[int, int, int, int, int]  # class, x, y, w, h


class Picture(NamedTuple):
    """An image file, its size (height, width) as it is shown, and its boxes."""

    stem: str
    split: str
    size: tuple[int, int]
    boxes: tuple[Box, ...]
    encoded: bytes

    @property
    def name(self) -> str:
        return f"{self.stem}.jpg"


@functools.lru_cache
def pictures() -> tuple[Picture, ...]:
    """In each split an image without boxes, and one that its EXIF data turns."""
    rng = np.random.default_rng(0)
    found = []
    for split, count in SPLITS.items():
        for i in range(count):
            exif = Image.Exif()
            exif.update(_TURNED if i == 1 else {})
            cells = Image.fromarray(rng.integers(0, 255, (6, 8, 3), np.uint8))
            file = io.BytesIO()
            cells.resize((80, 60), Image.Resampling.BICUBIC).save(file, "JPEG", exif=exif)
            size = (80, 60) if i == 1 else (60, 80)
            boxes = [_box(rng) for _ in range(0 if i == 2 else 3)]
            found.append(Picture(f"{split}.rf ü {i}", split, size, tuple(boxes), file.getvalue()))
    return tuple(found)


def _box(rng: np.random.Generator) -> Box:
    x, y, w, h = (
        int(rng.integers(low, high)) for low, high in ((0, 30), (0, 30), (4, 30), (4, 30))
    )
    return int(rng.integers(len(CLASSES))), x, y, w, h


def of(*splits: str) -> list[Picture]:
    """The images of some splits; of all, if none is named."""
    return [x for x in pictures() if x.split in (splits or SPLITS)]


def truth(*splits: str) -> dict[str, list[tuple[str, float, float, float, float]]]:
    """File name -> class and box (XYXY) of its objects, sorted."""
    return {
        p.name: sorted((CLASSES[c], x, y, x + w, y + h) for c, x, y, w, h in p.boxes)
        for p in of(*splits)
    }


def as_truth(content: dict[str, Any], images: Path) -> dict[str, list[Any]]:
    """What a COCO file says, as :func:`truth` tells it; its pictures have to be there."""
    names = {x["id"]: x["name"] for x in content["categories"]}
    files = {x["id"]: x["file_name"] for x in content["images"]}
    assert all((images / name).is_file() for name in files.values())
    found: dict[str, list[Any]] = {Path(name).name: [] for name in files.values()}
    for x in content["annotations"]:
        left, top, width, height = x["bbox"]
        box = (names[x["category_id"]], left, top, left + width, top + height)
        found[Path(files[x["image_id"]]).name].append(box)
    return {name: sorted(boxes) for name, boxes in found.items()}


def assert_is(found: dict[str, list[Any]], expected: dict[str, list[Any]]) -> None:
    """The same images, classes and boxes."""
    assert set(found) == set(expected)
    for name, boxes in expected.items():
        assert [x[0] for x in found[name]] == [x[0] for x in boxes], name
        for mine, theirs in zip(found[name], boxes):
            assert mine[1:] == pytest.approx(theirs[1:], abs=1e-4)  # of YOLO's six digits


def data_section(source: Any, **keys: Any) -> dict[str, Any]:
    """A config's ``data`` with a folder; ``train`` and ``val`` are the splits to take of it."""
    train, val = keys.pop("train", None), keys.pop("val", None)
    return {"source": str(source), "train": {"split": train}, "val": {"split": val}, **keys}


def put(folder: Path, chosen: Iterable[Picture]) -> Path:
    """Write images into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for picture in chosen:
        (folder / picture.name).write_bytes(picture.encoded)
    return folder


def coco(chosen: Sequence[Picture], *, root: bool = False) -> dict[str, Any]:
    """Content of a COCO file; with a category above all others, if asked for."""
    categories: list[dict[str, Any]] = [
        {"id": key, "name": name, "supercategory": "things" if root else ""}
        for key, name in reversed(list(zip(IDS, CLASSES)))
    ]
    if root:
        categories.insert(0, {"id": 0, "name": "things", "supercategory": "none"})
    images, annotations = [], []
    for i, picture in enumerate(chosen):
        height, width = picture.size
        key = 100 - i
        images.append({"id": key, "file_name": picture.name, "height": height, "width": width})
        for c, *box in picture.boxes:
            entry = {"id": len(annotations) + 1, "image_id": key, "category_id": IDS[c]}
            annotations.append({**entry, "bbox": box, "area": box[2] * box[3], "iscrowd": 0})
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def put_coco(path: Path, chosen: Sequence[Picture], *, root: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(coco(chosen, root=root)), encoding="utf-8")


def put_voc(files: Path, images: Path, chosen: Sequence[Picture]) -> None:
    write_voc(coco(chosen), files)
    put(images, chosen)


def put_yolo(labels: Path, images: Path, chosen: Sequence[Picture]) -> None:
    labels.mkdir(parents=True, exist_ok=True)
    assert write_yolo(coco(chosen), labels) == CLASSES
    put(images, chosen)


def put_description(path: Path, **keys: Any) -> Path:
    """JSON is YAML as well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"names": CLASSES, **keys}, ensure_ascii=False), encoding="utf-8")
    return path
