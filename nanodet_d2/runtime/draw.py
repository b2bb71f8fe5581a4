"""Pictures of detections and of ground truth, by OpenCV."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from .detections import Detections

Color = tuple[int, int, int]  # blue, green, red
Box = tuple[int, int, int, int]  # XYXY

_GAP = 8  # pixels between the pictures of a sheet
_LUMA = (0.114, 0.587, 0.299)  # of blue, green, red: ITU-R BT.601
_HUES = 180  # of OpenCV's 8-bit HSV
_TURN = 0.381966  # of the circle, the golden angle: no two of many classes come close
_FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclasses.dataclass(frozen=True)
class Style:
    """Widths and heights in pixels, of pictures that are looked at in one size."""

    line: int
    text: float
    stroke: int

    @classmethod
    def of(cls, image: np.ndarray) -> Style:
        unit = max(image.shape[:2]) / 640
        line = max(1, round(2 * unit))
        return cls(line=line, text=max(0.35, 0.5 * unit), stroke=max(1, line // 2))


@functools.lru_cache(maxsize=4096)
def class_color(index: int) -> Color:
    """The colour of a class: hues far apart, in turns light and dark."""
    hue = int(index * _TURN % 1 * _HUES)
    value, saturation = ((255, 255), (200, 255), (255, 150))[index // 3 % 3]
    pixel = cv2.cvtColor(np.array([[[hue, saturation, value]]], np.uint8), cv2.COLOR_HSV2BGR)
    blue, green, red = (int(x) for x in pixel[0, 0])
    return blue, green, red


def draw_detections(image: np.ndarray, found: Detections) -> np.ndarray:
    """Draw detections with their scores.

    Args:
        image: (H, W, 3) uint8 BGR; it is not changed.

    Returns:
        (H, W, 3) uint8 BGR.
    """
    texts = [f"{name} {score:.0%}" for name, score in zip(found.names, found.confidence)]
    return draw_boxes(image, found.xyxy, texts, found.class_id.tolist())


def draw_boxes(
    image: np.ndarray, boxes: np.ndarray, texts: Sequence[str], classes: Sequence[int]
) -> np.ndarray:
    """Draw boxes (K, 4) XYXY, the first on top, each with its text beside it.

    A text lies outside its box where there is room, and where it covers least of other texts and
    boxes.
    """
    drawn, style = image.copy(), Style.of(image)
    corners = [tuple(row) for row in np.rint(boxes).astype(int).reshape(-1, 4).tolist()]
    for (x0, y0, x1, y1), label in reversed(list(zip(corners, classes))):
        cv2.rectangle(drawn, (x0, y0), (x1, y1), class_color(label), style.line)
    places: list[Box] = []
    for box, text, label in zip(corners, texts, classes):
        mask = _text_mask(text, style)
        height, width = mask.shape
        place = _best_place(box, width, height, drawn.shape[:2], places, corners)
        places.append(place)
        _put(drawn, mask, place[:2], class_color(label))
    return drawn


def contact_sheet(rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str]) -> np.ndarray:
    """Join pictures to a white sheet, a title over each column; pictures may differ in size."""
    height = max(x.shape[0] for row in rows for x in row)
    width = max(x.shape[1] for row in rows for x in row)

    def cell(picture: np.ndarray) -> np.ndarray:
        canvas = np.full((height + _GAP, width + _GAP, 3), 255, np.uint8)
        canvas[: picture.shape[0], : picture.shape[1]] = picture
        return canvas

    def title(text: str) -> np.ndarray:
        banner = np.full((40, width + _GAP, 3), 255, np.uint8)
        cv2.putText(banner, text, (8, 28), _FONT, 0.8, (0, 0, 0), 2, cv2.LINE_AA)
        return banner

    lines = [np.hstack([title(text) for text in titles])]
    lines += [np.hstack([cell(picture) for picture in row]) for row in rows]
    return np.vstack(lines)


def _best_place(
    box: Box,
    width: int,
    height: int,
    size: Sequence[int],
    places: Sequence[Box],
    boxes: Sequence[Box],
) -> Box:
    """Where a text of that width and height goes: the first of the places that cover least."""
    x0, y0, x1, y1 = box
    corners = [
        *((x0, y0 - height), (x1 - width, y0 - height)),  # above
        *((x0, y1), (x1 - width, y1)),  # below
        *((x1, y0), (x0 - width, y0)),  # beside
        *((x0, y0), (x1 - width, y1 - height)),  # inside
    ]

    def fitted(x: int, y: int) -> Box:
        x, y = max(0, min(x, size[1] - width)), max(0, min(y, size[0] - height))
        return x, y, x + width, y + height

    def cost(place: Box) -> int:
        texts = sum(_overlap(place, other) for other in places)
        return 10 * texts + sum(_overlap(place, other) for other in boxes)

    return min((fitted(x, y) for x, y in corners), key=cost)


def _overlap(a: Box, b: Box) -> int:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(0, width) * max(0, height)


def _put(image: np.ndarray, mask: np.ndarray, corner: tuple[int, int], color: Color) -> None:
    """Write a text's mask (h, w) in [0, 1] on its colour; what lies outside is cut off."""
    part = image[corner[1] : corner[1] + mask.shape[0], corner[0] : corner[0] + mask.shape[1]]
    ink = 0 if np.dot(color, _LUMA) > 127 else 255
    alpha = mask[: part.shape[0], : part.shape[1], None]
    part[:] = np.rint(alpha * ink + (1 - alpha) * np.array(color))


@functools.lru_cache(maxsize=1024)
def _text_mask(text: str, style: Style) -> np.ndarray:
    """How much of each pixel (h, w) a text covers, 0 to 1, with a margin."""
    if not text.isascii():  # OpenCV has no other letters
        font = _font(round(30 * style.text))
        if font is not None:
            return _mask_by_pillow(text, font)
        text = text.encode("ascii", "replace").decode()
    (width, height), base = cv2.getTextSize(text, _FONT, style.text, style.stroke)
    mask = np.zeros((height + base, width), np.uint8)
    origin = (0, height + base // 2)
    cv2.putText(mask, text, origin, _FONT, style.text, 255, style.stroke, cv2.LINE_AA)
    return mask / 255


def _mask_by_pillow(text: str, font: Any) -> np.ndarray:
    from PIL import Image, ImageDraw

    _, _, right, lower = font.getbbox(text)
    mask = Image.new("L", (int(right) + 2, int(lower) + 3))
    ImageDraw.Draw(mask).text((1, 0), text, fill=255, font=font)
    return np.asarray(mask) / 255


@functools.lru_cache(maxsize=8)
def _font(pixels: int) -> Any:
    """A font with many letters: matplotlib's own copy of DejaVu, else Pillow's, else none."""
    if importlib.util.find_spec("PIL") is None:
        return None
    from PIL import ImageFont

    found = importlib.util.find_spec("matplotlib")
    if found is not None and found.origin is not None:
        path = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if path.is_file():
            return ImageFont.truetype(str(path), pixels)
    return ImageFont.load_default(pixels)
