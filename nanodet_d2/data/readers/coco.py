"""COCO detection files: one for each split, in ``annotations/`` or among the images."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.utils.file_io import PathManager

from ..files import Problems
from ..formats import COCO, json_looks_like, looks_like
from .coco_schema import require_coco
from .source import SPLITS, Layout, Source, files_in, folders_in, split_of

_START = re.compile(r'\s*\{\s*"(info|licenses|images|annotations|categories|type)"')
_START_BYTES = 4096
_LOOKED_AT = 20  # images of a file, to find their folder


def read(source: Source) -> dict[str, Any]:
    """The content of a source's file."""
    return without_root_category(read_coco_json(source.annotations))


def read_coco_json(json_file: str) -> dict[str, list[dict[str, Any]]]:
    """The content of a COCO detection file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not COCO; the message says what was found.
    """
    path = PathManager.get_local_path(json_file)
    if not os.path.exists(path):
        raise FileNotFoundError(f"annotation file {json_file} not found")
    if not os.path.isfile(path):
        raise ValueError(f"annotation file {json_file} is no file: it is {looks_like(path)}")
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"annotation file {json_file} is not valid json: {error}; it looks like "
            f"{looks_like(path)}"
        ) from error
    try:
        require_coco(content, json_file)
    except ValueError as error:
        raise ValueError(f"{error}{_guess(content)}") from error
    return content


def _guess(content: Any) -> str:
    guess = json_looks_like(content)
    return "" if guess in (None, COCO) else f"; it looks like {guess}"


def without_root_category(content: dict[str, Any]) -> dict[str, Any]:
    """Without the category that Roboflow writes above all others: it has no box of its own."""
    categories = content["categories"]
    parents = {x.get("supercategory") for x in categories}
    roots = [x for x in categories if x.get("supercategory") == "none" and x["name"] in parents]
    if len(roots) != 1 or len(categories) == 1:
        return content
    (root,) = roots
    used = any(
        isinstance(x, dict) and x.get("category_id") == root["id"] for x in content["annotations"]
    )
    if used:
        return content
    problems = Problems()
    problems.add("categories above all others without a box of their own, left out", root["name"])
    kept = [x for x in categories if x is not root]
    return {**content, "categories": kept, "problems": problems}


def recognise(folder: Path) -> list[Layout]:
    """The layouts of this kind that a folder may be: none or one.

    Raises:
        ValueError: if there are several files for a split.
    """
    splits: dict[str, Source] = {}
    for path in _coco_files(folder):
        # Of the data set's own folder the name says nothing.
        above = split_of(path.parent.name) if path.parent != folder else None
        split = split_of(path.stem) or above or ""
        source = Source("json", str(path), str(_image_folder(path, folder, split)))
        if split in splits:
            raise ValueError(
                f"{folder} has several COCO files{f' for {split}' if split else ''}: "
                f"{splits[split].annotations} and {path}; choose with data.train.json=… "
                "data.train.images=… and the same of data.val"
            )
        splits[split] = source
    if "" in splits and len(splits) > 1:
        named = ", ".join(x for x in splits if x)
        raise ValueError(
            f"{splits[''].annotations} does not say what split it is of, beside {named}: "
            f"put one of {', '.join(SPLITS)} into its name"
        )
    return [Layout("coco", "COCO", splits)] if splits else []


def _coco_files(folder: Path) -> list[Path]:
    """COCO files of boxes in a folder and in those right below it."""
    found = []
    for place in (folder, *folders_in(folder)):
        files = [x for x in files_in(place, [".json"]) if _starts_like_coco(x)]
        # Beside them COCO has files of the same images with other annotations.
        instances = [x for x in files if x.stem.startswith("instances")]
        found += instances or files
    return found


def _starts_like_coco(path: Path) -> bool:
    with open(path, "rb") as file:
        start = file.read(_START_BYTES)
    return bool(_START.match(start.decode("utf-8-sig", errors="replace")))


def _image_folder(path: Path, root: Path, split: str) -> Path:
    """The folder that the file's images are in, as far as the first of them tell."""
    images = read_coco_json(str(path))["images"]
    names = [image["file_name"] for image in images[:_LOOKED_AT]]
    places = _places(path, root, split)
    found = [sum((place / name).is_file() for name in names) for place in places]
    return places[found.index(max(found))]


def _places(path: Path, root: Path, split: str) -> Sequence[Path]:
    """Where images may lie, the usual ones first."""
    above = [path.parent, root]
    if split:
        suffix = re.sub(r"^.*?(?=train|val|test)", "", path.stem)  # of instances_train2017
        named = [suffix, *(x.name for x in folders_in(root) if split_of(x.name) == split)]
        above = [base / name for base in (root, root / "images") for name in named] + above
    return [*above, root / "images", *folders_in(root)]
