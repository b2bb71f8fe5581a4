"""The drawn shapes in motion: small videos with known ids, occlusions and gaps.

Objects drift and turn back beyond the border, pass in front of each other, and behind pillars that
hide them whole. A frame's ground truth has those of which ``MIN_VISIBLE`` is in view, with the full
extent of their ink, as in the still pictures. A clip depends on (seed, split, index) alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
from numpy.random import Generator

from .shapes import (
    CLASS_NAMES,
    INK,
    MIN_VISIBLE,
    SPLITS,
    DrawnObject,
    background,
    blend,
    box_of,
    clutter,
    contrasting,
    make_stamp,
    on_canvas,
)
from .synthetic import CATEGORY_IDS

# Of a model that is trained on the COCO files, whose classes are in the order of their ids.
MODEL_NAMES = tuple(sorted(CLASS_NAMES, key=lambda name: CATEGORY_IDS[name]))
_OBJECTS = (3, 6)  # of a clip, both ends included
_SIZES = (22, 42)  # longer side, of pictures of 160 px
_SPEEDS = (0.8, 2.6)  # pixels a frame, of pictures of 160 px
_PILLARS = (1, 2)
_PILLAR_WIDTHS = (0.14, 0.26)  # of the picture


@dataclasses.dataclass(frozen=True)
class Mover:
    """An object on its way.

    Attributes:
        cover: (h, w, 2) uint8: ink, and the label beneath it.
        colors: (2, 3) BGR of both.
        start, velocity: (2,) x and y of the upper left corner, pixels, and pixels a frame.
    """

    name: str
    cover: np.ndarray
    colors: np.ndarray
    start: np.ndarray
    velocity: np.ndarray

    def corner(self, frame: int, size: int) -> np.ndarray:
        """Where it is: it turns back when half of it has left the picture."""
        reach = np.array(self.cover.shape[1::-1])
        low, high = -0.5 * reach, size - 0.5 * reach
        span = high - low
        phase = (self.start + frame * self.velocity - low) % (2 * span)
        return np.round(low + span - np.abs(phase - span)).astype(int)


@dataclasses.dataclass(frozen=True)
class Scene:
    """What a clip shows: ``ground`` (H, W, 3) float32, objects from back to front, and ``pillars``,
    (H, W) bool and their colour."""

    ground: np.ndarray
    movers: tuple[Mover, ...]
    pillars: tuple[tuple[np.ndarray, np.ndarray], ...]


def make_scene(seed: int, split: str, index: int, size: int) -> tuple[Scene, Generator]:
    """The scene of a clip, and what its noise is drawn from."""
    key = (SPLITS.index(split), index, 1)  # 1: not the stream of the still picture
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
    ground = clutter(rng, background(rng, size))
    average = ground.reshape(-1, 3).mean(0)
    count = int(rng.integers(_OBJECTS[0], _OBJECTS[1] + 1))
    movers = tuple(_mover(rng, average, size) for _ in range(count))
    pillars = []
    for _ in range(int(rng.integers(_PILLARS[0], _PILLARS[1] + 1))):
        width = round(rng.uniform(*_PILLAR_WIDTHS) * size)
        left = int(rng.integers(round(0.1 * size), size - width - round(0.1 * size)))
        mask = np.zeros((size, size), bool)
        mask[:, left : left + width] = True
        pillars.append((mask, contrasting(rng, average, 40)))
    return Scene(ground, movers, tuple(pillars)), rng


def _mover(rng: Generator, average: np.ndarray, size: int) -> Mover:
    name = str(rng.choice(CLASS_NAMES))
    cover = make_stamp(name, rng, round(rng.uniform(*_SIZES) * size / 160))
    label = contrasting(rng, average, 60)
    ink = contrasting(rng, label if cover[..., 1].any() else average, 130)
    angle = rng.choice([0, np.pi]) + rng.uniform(-0.6, 0.6)  # rather across than along pillars
    speed = rng.uniform(*_SPEEDS) * size / 160
    return Mover(
        name=name,
        cover=cover,
        colors=np.stack([ink, label]),
        start=rng.uniform(0, size - np.array(cover.shape[1::-1])),
        velocity=speed * np.array([np.cos(angle), np.sin(angle)]),
    )


def draw_clip(
    seed: int, split: str, index: int, *, frames: int, size: int
) -> Iterator[tuple[np.ndarray, dict[int, DrawnObject]]]:
    """The frames of a clip: (H, W, 3) uint8, and by its id, from 1 on, each object in view."""
    scene, rng = make_scene(seed, split, index, size)
    noise = rng.uniform(2, 6)
    for frame in range(frames):
        image, objects = _compose(scene, frame, size)
        image = image + rng.normal(0, noise, image.shape)
        yield np.clip(image, 0, 255).astype(np.uint8), objects


def _compose(scene: Scene, frame: int, size: int) -> tuple[np.ndarray, dict[int, DrawnObject]]:
    image = scene.ground
    objects: dict[int, DrawnObject] = {}
    for number, mover in enumerate(scene.movers, 1):
        cover = on_canvas(mover.cover, mover.corner(frame, size), size)
        full, hides = cover[..., 0] >= INK, cover.max(axis=2) >= INK
        objects = {k: _behind(x, hides) for k, x in objects.items()}
        total = int((mover.cover[..., 0] >= INK).sum())
        objects[number] = DrawnObject(mover.name, full, full, total)
        image = blend(image, cover[..., 1], mover.colors[1])
        image = blend(image, cover[..., 0], mover.colors[0])
    for mask, color in scene.pillars:
        objects = {k: _behind(x, mask) for k, x in objects.items()}
        image = np.where(mask[..., None], color.astype(np.float32), image)
    seen = {k: x for k, x in objects.items() if x.visible.sum() >= MIN_VISIBLE * x.total_area}
    return image, seen


def _behind(item: DrawnObject, mask: np.ndarray) -> DrawnObject:
    return dataclasses.replace(item, visible=item.visible & ~mask)


def mot_truth(frame: int, objects: dict[int, DrawnObject]) -> list[str]:
    """The lines of a frame, which counts from 0, in the MOT Challenge's format for ground truth;
    classes count from 1, in the order of ``MODEL_NAMES``."""
    lines = []
    for number, item in objects.items():
        x0, y0, x1, y1 = box_of(item.full).tolist()
        share = item.visible.sum() / item.total_area
        label = MODEL_NAMES.index(item.name) + 1
        lines.append(f"{frame + 1},{number},{x0},{y0},{x1 - x0},{y1 - y0},1,{label},{share:.3f}\n")
    return lines
