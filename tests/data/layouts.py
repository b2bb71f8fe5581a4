"""Writers of one small data set: a function per layout.

Each fills a folder and gives what ``data.source`` has to be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tests.data import one_set
from tests.data.one_set import of, put, put_coco, put_description, put_voc, put_yolo


def coco_annotations(folder: Path) -> Path:
    for split in one_set.SPLITS:
        put_coco(folder / "annotations" / f"instances_{split}2017.json", of(split))
        put_coco(folder / "annotations" / f"person_keypoints_{split}2017.json", of(split))
        put(folder / f"{split}2017", of(split))
    return folder


def coco_images_below(folder: Path) -> Path:
    for split in one_set.SPLITS:
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
    for split in one_set.SPLITS:
        put_voc(folder / "annotations" / split, folder / "images" / split, of(split))
    return folder


def voc_splits_of_images(folder: Path) -> Path:
    """Both in images/train, beside folders of other things."""
    for split in one_set.SPLITS:
        put_voc(folder / "images" / split, folder / "images" / split, of(split))
    (folder / "scripts").mkdir()
    return folder


def voc_split_folders(folder: Path) -> Path:
    for split, name in (("train", "training"), ("val", "validation"), ("test", "Test")):
        put_voc(folder / name, folder / name, of(split))
    return folder


def voc_mirrored_in_splits(folder: Path) -> Path:
    for split in one_set.SPLITS:
        put_voc(folder / split / "Annotations", folder / split / "images", of(split))
    return folder


def yolo_folders(folder: Path) -> Path:
    for split in one_set.SPLITS:
        put_yolo(folder / "labels" / split, folder / "images" / split, of(split))
    put_description(folder / "data.yaml", **{x: f"images/{x}" for x in one_set.SPLITS}, nc=3)
    return folder


def yolo_path_and_mapping(folder: Path) -> Path:
    for split in one_set.SPLITS:
        place = folder / "pictures" / split
        put_yolo(place / "labels", place / "images", of(split))
    names = "".join(f"  {i}: {name}\n" for i, name in enumerate(one_set.CLASSES))
    path = folder / "configs" / "mine.yaml"
    path.parent.mkdir(parents=True)
    splits = "".join(f"{x}: {x}/images # of them\n" for x in one_set.SPLITS)
    path.write_text(f"path: ../pictures\n{splits}names:\n{names}", encoding="utf-8")
    return path


def yolo_lists_of_folders(folder: Path) -> Path:
    for split in one_set.SPLITS:
        for part, chosen in (("a", of(split)[:2]), ("b", of(split)[2:])):
            put_yolo(folder / part / "labels" / split, folder / part / "images" / split, chosen)
    splits = {x: [f"a/images/{x}", f"./b/images/{x}"] for x in one_set.SPLITS}
    put_description(folder / "dataset.yml", **splits)
    return folder


def yolo_text_files(folder: Path) -> Path:
    put_yolo(folder / "labels", folder / "images", of())
    for split in one_set.SPLITS:
        lines = "".join(f"./images/{x.name}\n" for x in of(split))
        (folder / f"{split}.txt").write_text(lines, encoding="utf-8")
    put_description(folder / "data.yaml", **{x: f"{x}.txt" for x in one_set.SPLITS})
    return folder


def yolo_roboflow(folder: Path) -> Path:
    for split, name in (("train", "train"), ("val", "valid"), ("test", "test")):
        put_yolo(folder / name / "labels", folder / name / "images", of(split))
    splits = {"train": "../train/images", "val": "../valid/images", "test": "../test/images"}
    put_description(folder / "data.yaml", **splits, roboflow={"license": "?"})
    (folder / "README.roboflow.txt").write_text("7 images are included.\n")
    return folder


def yolo_beside(folder: Path) -> Path:
    for split in one_set.SPLITS:
        put_yolo(folder / split, folder / split, of(split))
    put_description(folder / "data.yaml", **{x: str(folder / x) for x in one_set.SPLITS})
    return folder


def _put_classes(path: Path) -> None:
    path.write_text("\n".join(one_set.CLASSES), encoding="utf-8")


def yolo_undescribed(folder: Path) -> Path:
    for split in one_set.SPLITS:
        put_yolo(folder / "labels" / split, folder / "images" / split, of(split))
    _put_classes(folder / "classes.txt")
    return folder


def yolo_undescribed_split_folders(folder: Path) -> Path:
    for split in one_set.SPLITS:
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
