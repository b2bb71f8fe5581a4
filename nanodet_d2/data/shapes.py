"""Pictures of shapes and printed glyphs among clutter, drawn with OpenCV and NumPy.

Letters: H, W image, h, w stamp. Colours: BGR. Boxes: XYXY, absolute pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.random import Generator

CLASS_NAMES = ("circle", "square", "triangle", "star", "cross", "A", "8")
SPLITS = ("train", "val")
EMPTY_EVERY = 16  # one picture in 16 (6 %) holds clutter only
MIN_VISIBLE = 0.4  # of an object's ink, after occlusion and the image's border
MAX_BOX_IOU = 0.5  # below usual NMS thresholds, so that overlapping objects can both be found
INK = 64  # a pixel belongs to an object from a quarter of full cover on
SIZE_LOW, SIZE_MODE, SIZE_HIGH = 12, 48, 90  # longer side at 160 px images; median about 40
FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_TRIPLEX)


@dataclass(frozen=True)
class DrawnObject:
    """`full`: its ink within the image, `visible`: what is in view of it, both (H, W) bool."""

    name: str
    full: np.ndarray
    visible: np.ndarray
    total_area: int  # ink pixels, those beyond the border included


def box_of(mask: np.ndarray) -> np.ndarray:
    x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
    return np.array([x, y, x + w, y + h])


def _either(cover: np.ndarray) -> np.ndarray:
    return np.maximum(cover[..., 0], cover[..., 1])


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    inter = np.prod(np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None))
    return float(inter / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - inter))


def _radial(radii: Sequence[float] | np.ndarray) -> np.ndarray:
    """Corners at equal angles around the centre, (K, 2), in the unit circle."""
    angles = np.arange(len(radii)) * (2 * np.pi / len(radii)) - np.pi / 2
    return np.stack([np.cos(angles), np.sin(angles)], 1) * np.array(radii)[:, None]


def _cross(rng: Generator) -> np.ndarray:
    half, reach = rng.uniform(0.22, 0.34), 0.9
    quarter = np.array([[half, half], [half, reach], [-half, reach]])
    turn = np.array([[0, 1], [-1, 0]])  # row vectors turn by 90 degrees
    return np.concatenate([quarter @ np.linalg.matrix_power(turn, k) for k in range(4)])


_SHAPES = {
    "circle": lambda rng: _radial([1.0] * 64),
    "square": lambda rng: _radial([1.0] * 4),
    "triangle": lambda rng: _radial([rng.uniform(0.85, 1.0), 0.95, 0.95]),
    "star": lambda rng: _radial([1.0, rng.uniform(0.38, 0.5)] * 5),
    "cross": _cross,
}


def _fill(points: np.ndarray, side: int) -> np.ndarray:
    """Fills a polygon given in the unit circle; (side, side) uint8, room to rotate."""
    pixels = np.round((points * 0.47 + 0.5) * side).astype(np.int32)
    return cv2.fillPoly(np.zeros((side, side), np.uint8), [pixels], 255)


def _print(text: str, rng: Generator, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Prints a character, half of the time on a label. Returns ink and label, (side, side)."""
    ink, label = np.zeros((2, side, side), np.uint8)
    on_label = rng.random() < 0.5
    height = side * (0.35 if on_label else 0.6)
    font, thickness = int(rng.choice(FONTS)), max(1, round(height * rng.uniform(0.12, 0.2)))
    scale = height / 21  # Hershey capitals are about 21 px tall at scale 1
    (w, h), _ = cv2.getTextSize(text, font, scale, thickness)
    cv2.putText(ink, text, ((side - w) // 2, (side + h) // 2), font, scale, 255, thickness)
    if on_label:  # clearly wider than tall, as it must not pass for the class "square"
        half = side * np.array([rng.uniform(0.36, 0.43), rng.uniform(0.23, 0.27)])
        low, high = np.round([side / 2 - half, side / 2 + half]).astype(int).tolist()
        cv2.rectangle(label, low, high, 255, -1)
    return ink, label


def make_stamp(name: str, rng: Generator, size: int) -> np.ndarray:
    """Draws an object, rotated and cropped, its ink `size` px long on the longer side.

    Returns:
        (h, w, 2) uint8 cover: channel 0 the object's ink, channel 1 the label beneath it.
    """
    side = max(128, 5 * size)  # drawn large and averaged down: smooth edges, precise boxes
    if name in _SHAPES:
        layers = _fill(_SHAPES[name](rng), side), np.zeros((side, side), np.uint8)
        angle = rng.uniform(0, 360)
    else:  # print is rarely upside down
        layers, angle = _print(name, rng, side), rng.uniform(-20, 20)
    rotation = cv2.getRotationMatrix2D((side / 2, side / 2), angle, 1.0)
    canvas = cv2.warpAffine(np.stack(layers, -1), rotation, (side, side))
    ink_box, box = box_of(canvas[..., 0] >= INK), box_of(_either(canvas) >= INK)
    zoom = np.full(2, size / (ink_box[2:] - ink_box[:2]).max())
    zoom[rng.integers(2)] *= rng.uniform(0.88, 1.0)  # a slight squeeze
    new_size = np.maximum(np.round((box[2:] - box[:2]) * zoom), 1).astype(int).tolist()
    crop = canvas[box[1] : box[3], box[0] : box[2]]
    return cv2.resize(crop, new_size, interpolation=cv2.INTER_AREA)


def contrasting(rng: Generator, colour: np.ndarray, least: float) -> np.ndarray:
    """A random colour at least `least` away (Euclidean, of BGR) from `colour`."""
    for _ in range(20):
        candidate = rng.uniform(0, 255, 3)
        if np.linalg.norm(candidate - colour) >= least:
            return candidate
    return np.full(3, 255.0 if colour.mean() < 128 else 0.0)


def background(rng: Generator, size: int) -> np.ndarray:
    """A gradient and, half of the time, a grain on a random colour; (H, W, 3) float32."""
    grid = rng.normal(0, rng.uniform(5, 25), (int(rng.integers(2, 5)),) * 2 + (3,))
    image: np.ndarray = rng.uniform(30, 225, 3) + cv2.resize(grid, (size, size))
    if rng.random() < 0.5:
        grain = rng.normal(0, rng.uniform(3, 14), (size // int(rng.integers(2, 6)),) * 2)
        image += cv2.resize(grain, (size, size))[..., None]
    return np.clip(image, 0, 255).astype(np.float32)


def _strokes(rng: Generator, image: np.ndarray, count: int, thickness: int) -> np.ndarray:
    """Straight lines and squiggles: open, so that they are none of the classes."""
    image, size = image.copy(), len(image)
    for _ in range(count):
        steps, spread = ((1, 2), 0.5) if rng.random() < 0.5 else ((12, 2), 0.06)
        start = rng.uniform(0, size, (1, 2))
        path = np.cumsum(np.concatenate([start, rng.normal(0, spread * size, steps)]), 0)
        width, colour = int(rng.integers(1, thickness + 1)), rng.uniform(0, 255, 3).tolist()
        cv2.polylines(image, [path.astype(np.int32)], False, colour, width, cv2.LINE_AA)
    return image


def clutter(rng: Generator, image: np.ndarray) -> np.ndarray:
    """Soft see-through blobs, strokes and specks; all of it lies beneath the objects."""
    size = len(image)
    for _ in range(rng.integers(0, 4)):
        reach = int(rng.uniform(0.1, 0.4) * size)
        blob = cv2.GaussianBlur(_fill(_radial(rng.uniform(0.3, 1, 9)), reach), (0, 0), reach / 12)
        corner = rng.integers(0, size - reach, 2)
        image = blend(image, on_canvas(blob, corner, size) * 0.4, rng.uniform(0, 255, 3))
    image = _strokes(rng, image, int(rng.integers(0, 6)), max(1, size // 53))
    for x, y in rng.integers(0, size, (int(rng.integers(0, 40)), 2)).tolist():
        colour = np.clip(image[y, x] + rng.normal(0, 40, 3), 0, 255)  # close to its surroundings
        cv2.circle(image, (x, y), max(1, size // 160), colour.tolist(), -1)
    return image


def on_canvas(stamp: np.ndarray, corner: np.ndarray, size: int) -> np.ndarray:
    """Lays a stamp with its top left corner at `corner` (x, y) on a blank image; clips it."""
    canvas = np.zeros((size, size, *stamp.shape[2:]), stamp.dtype)
    low, high = np.clip([corner, corner + stamp.shape[1::-1]], 0, size)
    (u0, v0), (u1, v1) = low - corner, high - corner
    canvas[low[1] : high[1], low[0] : high[0]] = stamp[v0:v1, u0:u1]
    return canvas


def blend(image: np.ndarray, cover: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Mixes `colour`, (3,) or (H, W, 3), into the image by `cover` in [0, 255]."""
    alpha = (cover / 255).astype(np.float32)[..., None]
    return (image * (1 - alpha) + alpha * colour).astype(np.float32)


def _paint(rng: Generator, image: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """Paints label and ink, (H, W, 2) cover, in colours that stand out from what lies beneath."""
    ink, label = cover[..., 0], cover[..., 1]
    if label.any():
        image = blend(image, label, contrasting(rng, image[label >= INK].mean(0), 60))
    colour = contrasting(rng, image[ink >= INK].mean(0), 130)
    low, high = rng.uniform(0.8, 1.2, 2)
    ramp = np.linspace(low, high, len(image))  # uneven light, down the image
    image = blend(image, ink, np.clip(ramp[:, None, None] * colour, 0, 255))
    if rng.random() < 0.3:  # a darker rim
        inner = cv2.erode(ink, np.ones((3, 3), np.uint8), iterations=max(1, len(image) // 160))
        image = blend(image, cv2.subtract(ink, inner), colour * 0.5)
    return image


def _place(
    rng: Generator, name: str, below: list[DrawnObject], size: int
) -> tuple[list[DrawnObject], np.ndarray] | None:
    """Finds room for one more object.

    Returns:
        All objects with it on top, and its (H, W, 2) cover; None after a number of tries in vain.
    """
    longest = np.exp(rng.triangular(*np.log([SIZE_LOW, SIZE_MODE, SIZE_HIGH])))
    stamp = make_stamp(name, rng, round(longest * size / 160))
    total = int((stamp[..., 0] >= INK).sum())
    reach = np.array(stamp.shape[1::-1])
    for _ in range(12):
        corner = np.floor(rng.uniform(-0.25 * reach, size - 0.75 * reach)).astype(int)
        cover = on_canvas(stamp, corner, size)
        full, hides = cover[..., 0] >= INK, _either(cover) >= INK
        objects = [replace(o, visible=o.visible & ~hides) for o in below]
        objects.append(DrawnObject(name, full, full, total))
        box = box_of(full)
        if all(o.visible.sum() >= MIN_VISIBLE * o.total_area for o in objects) and all(
            _iou(box, box_of(o.full)) <= MAX_BOX_IOU for o in below
        ):
            return objects, cover
    return None


def draw_picture(
    seed: int, split: str, index: int, size: int
) -> tuple[np.ndarray, list[DrawnObject]]:
    """Draws picture `index` of a split: (H, W, 3) uint8 and its objects, from back to front."""
    key = (SPLITS.index(split), index)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
    image = clutter(rng, background(rng, size))
    names = list(CLASS_NAMES)
    objects: list[DrawnObject] = []
    empty = index % EMPTY_EVERY == EMPTY_EVERY // 2
    for k in range(0 if empty else int(rng.integers(1, 7))):
        # The first kinds go round, so that a small set holds every class, too.
        name = names[index % len(names)] if k == 0 else str(rng.choice(names))
        placed = _place(rng, name, objects, size)
        if placed is not None:
            objects, cover = placed
            image = _paint(rng, image, cover)
    if rng.random() < 0.3:  # hair lines across everything; they hide next to nothing
        image = _strokes(rng, image, int(rng.integers(1, 3)), 1)
    if rng.random() < 0.25:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 0.9))
    image = image + rng.normal(0, rng.uniform(2, 8), image.shape)
    return np.clip(image, 0, 255).astype(np.uint8), objects
