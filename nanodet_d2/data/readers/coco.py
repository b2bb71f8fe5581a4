"""COCO detection files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from detectron2.utils.file_io import PathManager

from ..formats import COCO, json_looks_like, looks_like
from .coco_schema import require_coco


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
