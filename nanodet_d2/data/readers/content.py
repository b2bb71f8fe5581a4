"""The content of a COCO file, put together by the readers of other layouts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..files import Problems


class Content:
    """Collects images, and the boxes of the image that was added last.

    Args:
        names: of the classes.
        first_id: of the first class; the others follow it.
        problems: what was met before; more may be added.
    """

    def __init__(self, names: Sequence[str], *, first_id: int, problems: Problems):
        self.first_id = first_id
        self.problems = problems
        self._categories = [{"id": first_id + i, "name": name} for i, name in enumerate(names)]
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add_image(self, file_name: str, size: tuple[int, int]) -> None:
        """Add an image of (height, width)."""
        entry = {"id": len(self._images) + 1, "file_name": file_name}
        self._images.append({**entry, "height": size[0], "width": size[1]})

    def add_box(self, class_index: int, xywh: Sequence[float], *, is_crowd: bool = False) -> None:
        """Add a box (XYWH, pixels) of a class in [0, C); a crowd's neither teaches nor counts."""
        self._annotations.append(
            {
                "id": len(self._annotations) + 1,
                "image_id": len(self._images),
                "category_id": self.first_id + class_index,
                "bbox": list(xywh),
                "iscrowd": int(is_crowd),
            }
        )

    def as_coco(self) -> dict[str, Any]:
        """``images``, ``annotations`` and ``categories`` as in a COCO file, and ``problems``."""
        return {
            "images": self._images,
            "annotations": self._annotations,
            "categories": self._categories,
            "problems": self.problems,
        }


def box_around(xs: Sequence[float], ys: Sequence[float]) -> list[float]:
    """XYWH of the upright box around points; all NaN if a number is not finite."""
    if not all(map(math.isfinite, (*xs, *ys))):  # min and max would step over a NaN
        return [math.nan] * 4
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
