"""How a folder of Pascal VOC's says what its splits are."""

from __future__ import annotations

from pathlib import Path

from nanodet_d2.runtime.files import IMAGE_SUFFIXES, relative_files

from ..formats import VOC, looks_like
from .source import Layout, Source, files_in, folders_in, has_files, lines_of, split_folders

_XML = (".xml",)
_LOOKED_AT = 20  # XML files of a folder, to tell whether they are of Pascal VOC
_LISTS = ("train", "val", "trainval", "test")  # of ImageSets/Main; others are of a class


def recognise(folder: Path) -> list[Layout]:
    """The layouts of this kind that a folder may be: none or one.

    Raises:
        ValueError: for several devkits, or several folders of a split.
    """
    below = folders_in(folder)
    devkits = [
        place
        for place in (folder, *below, *(y for x in below for y in folders_in(x)))
        if (place / "JPEGImages").is_dir() and (place / "Annotations").is_dir()
    ]
    if len(devkits) > 1:
        names = ", ".join(str(x.relative_to(folder)) for x in devkits)
        raise ValueError(f"{folder} has several devkits of Pascal VOC: {names}; choose one of them")
    if devkits:
        return [_devkit(devkits[0])]
    places = split_folders(folder)
    splits = {split: found for split, x in places.items() if (found := _in_one_folder(x))}
    whole = None if splits else _in_one_folder(folder)
    if whole is not None:  # the splits may be below it, as annotations/train and images/train
        files, images = (split_folders(Path(x)) for x in (whole.annotations, whole.images))
        splits = {
            split: Source("voc", str(place), str(images[split]))
            for split, place in files.items()
            if split in images and has_files(place, _XML)
        }
    if splits:
        return [Layout("voc", "Pascal VOC, a folder a split", splits)]
    return [Layout("voc", "Pascal VOC", {"": whole})] if whole else []


def _devkit(folder: Path) -> Layout:
    """With ``Annotations``, ``JPEGImages`` and, maybe, ``ImageSets/Main/*.txt``."""
    files = str(folder / "Annotations"), str(folder / "JPEGImages")
    sets = folder / "ImageSets" / "Main"
    lists = [
        path
        for path in (sets / f"{name}.txt" for name in _LISTS)
        if path.is_file() and lines_of(path)
    ]
    if not lists:
        return Layout("voc", "Pascal VOC's devkit without lists", {"": Source("voc", *files)})
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
    if len(annotations) == len(images) == 1:
        return Source("voc", str(annotations[0]), str(images[0]))
    if annotations and annotations == images:  # a folder a class, say, with both in it
        return Source("voc", str(folder), str(folder))
    return None
