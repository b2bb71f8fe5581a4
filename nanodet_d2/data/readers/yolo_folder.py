"""How a folder of YOLO's says what its splits and classes are."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from nanodet_d2.runtime.files import IMAGE_SUFFIXES

from ..formats import is_yolo_line
from .source import Layout, Source, files_in, has_files, lines_of, split_folders
from .yolo import mirrored_labels

_YAML = (".yaml", ".yml")
_USUAL = ("data", "dataset")  # names of the description
_KEYS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
_NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels", "labels.txt")


def recognise(folder: Path) -> list[Layout]:
    """The layouts of this kind that a folder may be: none or one.

    Raises:
        ValueError: for several descriptions, or one that names what is not there.
    """
    described = {path: content for path in files_in(folder, _YAML) if (content := _read(path))}
    usual = [path for path in described if path.stem in _USUAL]
    if len(described) > 1 and len(usual) != 1:
        raise ValueError(
            f"{folder} has several descriptions of YOLO data sets: "
            f"{', '.join(x.name for x in described)}; give the path of one as data.source"
        )
    if described:
        path = usual[0] if usual else next(iter(described))
        return [described_layout(path)]
    return _undescribed(folder)


def is_description(path: str) -> bool:
    """Whether a file describes a YOLO data set, as ``data.yaml`` does."""
    return _read(Path(path)) is not None


def described_layout(path: Path) -> Layout:
    """Of ``data.yaml``: ``train``, ``val`` and ``test`` are folders, lists, or several of these.

    Raises:
        ValueError: if it names what is not there, or no classes.
    """
    content = _read(path)
    if content is None:
        raise ValueError(f"{path} is no description of a YOLO data set: it needs names and train")
    classes, root = _names(content["names"], path), _root(content, path)
    splits = {}
    for split, keys in _KEYS.items():
        value = next((content[key] for key in keys if content.get(key)), None)
        if value is None:
            continue
        entries = [value] if isinstance(value, str) else value
        if not isinstance(entries, list) or not all(isinstance(x, str) for x in entries):
            raise ValueError(f"{path}: {split} is {value!r}; allowed: a path, or a list of paths")
        listed = tuple(str(_place(entry, root, path)) for entry in entries)
        splits[split] = Source("yolo", str(path), _common(root, listed), classes, listed)
    return Layout("yolo", f"YOLO, described by {path.name}", splits)


def _read(path: Path) -> dict[str, Any] | None:
    """The description; None for another file.

    Raises:
        ValueError: if it has a description's name, but is no YAML.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = yaml.safe_load(text)
        if not isinstance(content, dict) or "names" not in content or "train" not in content:
            return None
        # As they are written: YAML takes "no" for a truth value and "007" for a number.
        return {**content, "names": yaml.load(text, yaml.BaseLoader)["names"]}
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if path.stem not in _USUAL:
            return None
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from error


def _names(names: Any, path: Path) -> tuple[str, ...]:
    if isinstance(names, Mapping):
        if set(names) != {str(i) for i in range(len(names))}:
            raise ValueError(
                f"{path}: names has the keys {', '.join(map(str, names))[:80]}; allowed: 0, 1, 2, "
                "… without a gap"
            )
        names = [names[str(i)] for i in range(len(names))]
    if not isinstance(names, list) or not names or not all(isinstance(x, str) for x in names):
        raise ValueError(f"{path}: names is {names!r}; allowed: a list, or a mapping from numbers")
    return tuple(names)


def _root(content: Mapping[str, Any], path: Path) -> Path:
    """The folder that the splits are relative to."""
    root = path.parent / os.path.expanduser(str(content.get("path") or "."))
    return root if root.is_dir() else path.parent  # it was written on another machine


def _place(entry: str, root: Path, path: Path) -> Path:
    """A folder or list; ``../train/images`` often means one beside the description."""
    inside = entry
    while inside.startswith(("../", "./")):
        inside = inside.split("/", 1)[1]
    for place in (root / entry, path.parent / entry, root / inside, path.parent / inside):
        if place.exists():
            return Path(os.path.normpath(place))
    raise ValueError(f"{path} names {entry}, which is not there; looked for in {root}")


def _common(root: Path, listed: Sequence[str]) -> str:
    """The folder that images' names are relative to."""
    places = [x if os.path.isdir(x) else os.path.dirname(x) for x in listed]
    return os.path.commonpath([os.path.abspath(x) for x in [str(root), *places]])


def _undescribed(folder: Path) -> list[Layout]:
    """Folders ``images`` and ``labels``, or images and text files together."""
    inside = folder / "images" if (folder / "images").is_dir() else folder
    places = split_folders(folder) or split_folders(inside) or {"": inside}
    places = {split: place for split, place in places.items() if _has_labels(place)}
    if not places:
        return []
    classes = _listed_names(folder, list(places.values()))
    splits = {
        split: Source("yolo", str(folder), str(folder), classes, (str(place),))
        for split, place in places.items()
    }
    return [Layout("yolo", "YOLO without a description", splits)]


def _has_labels(place: Path) -> bool:
    """Whether there is a text file of YOLO's below the folder, or where its images have theirs."""
    if not has_files(place, IMAGE_SUFFIXES):
        return False
    texts = (
        Path(root, name)
        for labels in (place, mirrored_labels(place))
        for root, _, names in os.walk(labels)
        for name in names
        if name.endswith(".txt") and name not in _NAME_FILES
    )
    return any(path.is_file() and is_yolo_line(path) for path in texts)


def _listed_names(folder: Path, places: Sequence[Path]) -> tuple[str, ...]:
    """Classes of a file that lists them, as labelImg and Darknet write it; else none."""
    for place in (folder, folder / "labels", *places):
        for name in _NAME_FILES:
            if (place / name).is_file():
                return tuple(lines_of(place / name))
    return ()
