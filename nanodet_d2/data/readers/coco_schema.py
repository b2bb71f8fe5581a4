"""What a COCO detection file must be: checked entry by entry, as anybody may have written it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

LISTS = ("images", "annotations", "categories")


def require_coco(content: Any, source: str) -> None:
    """Raise ``ValueError``, in one line with file and place, for what cannot be worked with.

    Annotations are not looked into: a bad one costs only itself.
    """
    if not isinstance(content, dict) or any(not isinstance(content.get(k), list) for k in LISTS):
        found = sorted(content)[:12] if isinstance(content, dict) else type(content).__name__
        raise ValueError(
            f"annotation file {source} is not COCO: found {found}, "
            f"needed: an object with the lists {', '.join(LISTS)}"
        )
    for name, fields in _FIELDS.items():
        for i, entry in enumerate(content[name]):
            _require_entry(entry, fields, f"annotation file {source}: {name}[{i}]")
        kinds = {isinstance(entry["id"], str) for entry in content[name]}
        if len(kinds) > 1:
            raise ValueError(f"annotation file {source}: {name} have both numbers and words as id")
    if not content["categories"]:
        raise ValueError(f"annotation file {source} has no categories; needed: one or more")


def _require_entry(entry: Any, fields: Mapping[str, tuple], where: str) -> None:
    if not isinstance(entry, Mapping):
        raise ValueError(f"{where} is {_short(entry)}; needed: an object")
    missing = [field for field in fields if field not in entry]
    if missing:
        raise ValueError(f"{where} {_short(entry)} lacks {missing}")
    for field, (is_valid, allowed) in fields.items():
        if not is_valid(entry[field]):
            raise ValueError(f"{where} has the {field} {_short(entry[field])}; allowed: {allowed}")


def is_crowd(annotation: Mapping[str, Any]) -> bool:
    """Whether it marks a region in which nothing is to be learnt or to be found.

    Some files say so by ``ignore`` alone, which pycocotools overwrites with ``iscrowd``.
    """
    return any(annotation.get(key) in (1, True, "1") for key in ("iscrowd", "ignore"))


def is_evaluable(content: Mapping[str, Any]) -> bool:
    """Whether pycocotools can read a file as it is; it stops at annotations it cannot."""
    return all(
        isinstance(x, Mapping)
        and all(is_key(x.get(key)) for key in ("id", "image_id", "category_id"))
        and _is_box(x.get("bbox"))
        for x in content["annotations"]
    )


def _is_box(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 4
        and all(type(v) in (int, float) and abs(v) < math.inf for v in value)
    )


def is_key(value: Any) -> bool:
    """Whether a value can be an id: a whole number or a word."""
    return isinstance(value, str) or _is_whole(value)


def _is_whole(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return isinstance(value, int) or (math.isfinite(value) and value.is_integer())


def _is_side(value: Any) -> bool:
    return _is_whole(value) and 0 < value < 2**31


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value.strip() != "" and "\0" not in value


def _short(value: Any, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[:limit] + "…"


_Check = tuple[Callable[[Any], bool], str]
_ID: _Check = (is_key, "a whole number or a word")
_SIDE: _Check = (_is_side, "a whole number of pixels above 0")
_NAME: _Check = (_is_name, "a name")
_FIELDS: dict[str, dict[str, _Check]] = {
    "images": {"id": _ID, "file_name": _NAME, "width": _SIDE, "height": _SIDE},
    "categories": {"id": _ID, "name": _NAME},
}
