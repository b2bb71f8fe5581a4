"""Converting a data set: by our readers where they know its layout, else by what reads it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..files import Problems
from ..formats import looks_like
from ..paths import files_outside, image_path, missing_files
from ..readers import LAYOUTS, SPLITS, UnknownLayout
from ..sources import SplitSource, layout_of, read_split
from . import by_datumaro, json_tools
from .writing import Part, Picture, require_new, write_coco


class Converted(NamedTuple):
    """What was written.

    Attributes:
        what: the data set was, in words.
        splits: name -> numbers of ``images`` and ``annotations``.
        problems: what could not be taken over, and what the reader met.
    """

    what: str
    splits: dict[str, dict[str, int]]
    problems: Problems


def convert(
    data: Mapping[str, Any], output: str | Path, *, form: str | None = None, copy: bool = False
) -> Converted:
    """Write a data set as COCO files; none of its own files is changed.

    Args:
        data: the ``data`` section of a config, with ``source``, the data set's folder.
        output: a new or empty folder. It is filled at once, when all is done.
        form: one of our layouts, of ``json_tools.FORMS`` or of datumaro's; found by itself if None.
        copy: images; else they are hard links where that is possible.

    Raises:
        FileNotFoundError: if there is no such data set.
        ImportError: if datumaro is needed and not installed.
        ValueError: if there is something in ``output``, or if the format is not known or could be
            several; the message names them.
    """
    require_new(Path(output))
    parts, what, problems = _read(data, form)
    if not any(part.content["annotations"] for part in parts.values()):
        raise ValueError(
            f"{data['source']}, read as {what}, has no boxes{f': {problems}' if problems else ''}"
        )
    return Converted(what, write_coco(Path(output), parts, problems, copy=copy), problems)


def _read(data: Mapping[str, Any], form: str | None) -> tuple[dict[str, Part], str, Problems]:
    if form is None or form in LAYOUTS:
        try:
            return _by_our_readers({**data, "layout": form or data.get("layout")})
        except UnknownLayout:
            if form is not None or data.get("layout"):
                raise
    folder = os.path.expanduser(str(data["source"]))
    if form is None or form in json_tools.FORMS:
        found = json_tools.read(folder, form)
        if found is not None:
            return found
        if form is not None:
            raise ValueError(f"{folder} has no file of {form}; it looks like {looks_like(folder)}")
    return by_datumaro.read(folder, form)


def _by_our_readers(data: Mapping[str, Any]) -> tuple[dict[str, Part], str, Problems]:
    layout = layout_of(data)
    parts: dict[str, Part] = {}
    problems = Problems()
    for split in (x for x in SPLITS if x in layout.splits):
        source = SplitSource(layout.splits[split])
        content = read_split(source)
        for what, count, first in content.get("problems", ()):
            problems.add(what, f"{split}: {first}", count)
        parts[split] = _with_images(
            content, source.files.images, bool(data.get("allow_outside")), problems
        )
    return parts, layout.what, problems


def _with_images(
    content: Mapping[str, Any], folder: str, allow_outside: bool, problems: Problems
) -> Part:
    """A content without the images that are not there."""
    paths = [
        image_path(folder, x["file_name"], allow_outside=allow_outside) for x in content["images"]
    ]
    outside = [] if allow_outside else files_outside(paths, folder)
    if outside:
        raise ValueError(
            f"{len(outside)} images are links that lead out of {folder}, the first: {outside[0]} "
            "(data.allow_outside=true allows it)"
        )
    missing = missing_files(paths)
    for path in sorted(missing):
        problems.add("images that are missing, left out", path)
    kept = [(x, path) for x, path in zip(content["images"], paths) if path not in missing]
    ids = {x["id"] for x, _ in kept}
    annotations = [
        x for x in content["annotations"] if not isinstance(x, Mapping) or x.get("image_id") in ids
    ]
    pictures = [Picture(name="", path=path) for _, path in kept]
    return Part({**content, "images": [x for x, _ in kept], "annotations": annotations}, pictures)
