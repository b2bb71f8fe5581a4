"""One small data set, written out in every layout that is known.

A writer fills a folder and gives what ``data.source`` has to be. Boxes have whole numbers, so that
every layout tells them exactly.
"""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from tests.data.formats import write_voc, write_yolo

CLASSES = ["Ein Würfel", "traffic light", "狗"]  # sorted, as Pascal VOC's are
SPLITS = {"train": 6, "val": 3, "test": 3}
_IDS = (7, 12, 90)  # of the categories in COCO files
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


def data_section(source: Any, **keys: Any) -> dict[str, Any]:
    """A config's ``data`` with a folder; ``train`` and ``val`` are the splits to take of it."""
    train, val = keys.pop("train", None), keys.pop("val", None)
    return {"source": str(source), "train": {"split": train}, "val": {"split": val}, **keys}


# What writers share.


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
        for key, name in reversed(list(zip(_IDS, CLASSES)))
    ]
    if root:
        categories.insert(0, {"id": 0, "name": "things", "supercategory": "none"})
    images, annotations = [], []
    for i, picture in enumerate(chosen):
        height, width = picture.size
        key = 100 - i
        images.append({"id": key, "file_name": picture.name, "height": height, "width": width})
        for c, *box in picture.boxes:
            entry = {"id": len(annotations) + 1, "image_id": key, "category_id": _IDS[c]}
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


# The layouts.


def coco_annotations(folder: Path) -> Path:
    for split in SPLITS:
        put_coco(folder / "annotations" / f"instances_{split}2017.json", of(split))
        put_coco(folder / "annotations" / f"person_keypoints_{split}2017.json", of(split))
        put(folder / f"{split}2017", of(split))
    return folder


def coco_images_below(folder: Path) -> Path:
    for split in SPLITS:
        put_coco(folder / "annotations" / f"{split}.json", of(split))
        put(folder / "images" / split, of(split))
    return folder


def coco_roboflow(folder: Path) -> Path:
    for split, name in (("train", "train"), ("val", "valid"), ("test", "test")):
        put_coco(put(folder / name, of(split)) / "_annotations.coco.json", of(split), root=True)
    return folder


def coco_single(folder: Path) -> Path:
    put_coco(folder / "labels.json", of())
    put(folder / "images", of())
    return folder


def voc_devkit(folder: Path, *, lists: Sequence[str] = ("train", "val", "test")) -> Path:
    put_voc(folder / "Annotations", folder / "JPEGImages", of())
    main = folder / "ImageSets" / "Main"
    main.mkdir(parents=True)
    for name in lists:
        splits = ("train", "val") if name == "trainval" else (name,)
        lines = "".join(f"{x.stem}\n" for x in of(*splits))
        (main / f"{name}.txt").write_text(lines, encoding="utf-8")
    (main / "dog_train.txt").write_text(f"{of('train')[0].stem}  1\n", encoding="utf-8")
    return folder


def voc_devkit_below(folder: Path) -> Path:
    voc_devkit(folder / "VOCdevkit" / "VOC2007")
    return folder


def voc_devkit_trainval(folder: Path) -> Path:
    return voc_devkit(folder, lists=("trainval", "test"))


def voc_devkit_without_lists(folder: Path) -> Path:
    return voc_devkit(folder, lists=())


def voc_one_folder(folder: Path) -> Path:
    put_voc(folder, folder, of())
    return folder


def voc_mirrored(folder: Path) -> Path:
    put_voc(folder / "xml", folder / "photographs", of())
    return folder


def voc_mirrored_splits(folder: Path) -> Path:
    for split in SPLITS:
        put_voc(folder / "annotations" / split, folder / "images" / split, of(split))
    return folder


def voc_splits_of_images(folder: Path) -> Path:
    """Both in images/train, beside folders of other things."""
    for split in SPLITS:
        put_voc(folder / "images" / split, folder / "images" / split, of(split))
    (folder / "scripts").mkdir()
    return folder


def voc_split_folders(folder: Path) -> Path:
    for split, name in (("train", "training"), ("val", "validation"), ("test", "Test")):
        put_voc(folder / name, folder / name, of(split))
    return folder


def voc_mirrored_in_splits(folder: Path) -> Path:
    for split in SPLITS:
        put_voc(folder / split / "Annotations", folder / split / "images", of(split))
    return folder


def yolo_folders(folder: Path) -> Path:
    for split in SPLITS:
        put_yolo(folder / "labels" / split, folder / "images" / split, of(split))
    put_description(folder / "data.yaml", **{x: f"images/{x}" for x in SPLITS}, nc=3)
    return folder


def yolo_path_and_mapping(folder: Path) -> Path:
    for split in SPLITS:
        place = folder / "pictures" / split
        put_yolo(place / "labels", place / "images", of(split))
    names = "".join(f"  {i}: {name}\n" for i, name in enumerate(CLASSES))
    path = folder / "configs" / "mine.yaml"
    path.parent.mkdir(parents=True)
    splits = "".join(f"{x}: {x}/images # of them\n" for x in SPLITS)
    path.write_text(f"path: ../pictures\n{splits}names:\n{names}", encoding="utf-8")
    return path


def yolo_lists_of_folders(folder: Path) -> Path:
    for split in SPLITS:
        for part, chosen in (("a", of(split)[:2]), ("b", of(split)[2:])):
            put_yolo(folder / part / "labels" / split, folder / part / "images" / split, chosen)
    splits = {x: [f"a/images/{x}", f"./b/images/{x}"] for x in SPLITS}
    put_description(folder / "dataset.yml", **splits)
    return folder


def yolo_text_files(folder: Path) -> Path:
    put_yolo(folder / "labels", folder / "images", of())
    for split in SPLITS:
        lines = "".join(f"./images/{x.name}\n" for x in of(split))
        (folder / f"{split}.txt").write_text(lines, encoding="utf-8")
    put_description(folder / "data.yaml", **{x: f"{x}.txt" for x in SPLITS})
    return folder


def yolo_roboflow(folder: Path) -> Path:
    for split, name in (("train", "train"), ("val", "valid"), ("test", "test")):
        put_yolo(folder / name / "labels", folder / name / "images", of(split))
    splits = {"train": "../train/images", "val": "../valid/images", "test": "../test/images"}
    put_description(folder / "data.yaml", **splits, roboflow={"license": "?"})
    (folder / "README.roboflow.txt").write_text("7 images are included.\n")
    return folder


def yolo_beside(folder: Path) -> Path:
    for split in SPLITS:
        put_yolo(folder / split, folder / split, of(split))
    put_description(folder / "data.yaml", **{x: str(folder / x) for x in SPLITS})
    return folder


def _put_classes(path: Path) -> None:
    path.write_text("\n".join(CLASSES), encoding="utf-8")


def yolo_undescribed(folder: Path) -> Path:
    for split in SPLITS:
        put_yolo(folder / "labels" / split, folder / "images" / split, of(split))
    _put_classes(folder / "classes.txt")
    return folder


def yolo_undescribed_split_folders(folder: Path) -> Path:
    for split in SPLITS:
        put_yolo(folder / split / "labels", folder / split / "images", of(split))
    _put_classes(folder / "train" / "classes.txt")
    return folder


def yolo_undescribed_one_folder(folder: Path) -> Path:
    put_yolo(folder, folder, of())
    _put_classes(folder / "classes.txt")
    return folder


def yolo_undescribed_mirrored(folder: Path) -> Path:
    put_yolo(folder / "labels", folder / "images", of())
    _put_classes(folder / "labels" / "classes.txt")
    return folder


Writer = Callable[[Path], Path]
WITH_SPLITS: tuple[Writer, ...] = (
    coco_annotations,
    coco_images_below,
    coco_roboflow,
    voc_devkit,
    voc_devkit_below,
    voc_mirrored_splits,
    voc_splits_of_images,
    voc_split_folders,
    voc_mirrored_in_splits,
    yolo_folders,
    yolo_path_and_mapping,
    yolo_lists_of_folders,
    yolo_text_files,
    yolo_roboflow,
    yolo_beside,
    yolo_undescribed,
    yolo_undescribed_split_folders,
)
WITHOUT_SPLITS: tuple[Writer, ...] = (
    coco_single,
    voc_devkit_without_lists,
    voc_one_folder,
    voc_mirrored,
    yolo_undescribed_one_folder,
    yolo_undescribed_mirrored,
)
