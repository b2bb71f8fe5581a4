"""The drawn clips on disk: frames for a detector, videos to track in, and their ground truth."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from .clips import draw_clip, mot_truth
from .shapes import DrawnObject
from .synthetic import CATEGORY_IDS, coco_record, write_json

logger = logging.getLogger(__name__)

FPS = 25
DESCRIPTION = "nanodet_d2 drawn videos of shapes and glyphs"


@dataclasses.dataclass(frozen=True)
class ClipSet:
    """A data set on disk.

    Attributes:
        splits: "train" and "val": path of the annotations of single frames ("json"), and the folder
            of their pictures ("images").
        clips: of val: a video, and its ground truth as MOT text.
    """

    splits: dict[str, dict[str, str]]
    clips: tuple[tuple[Path, Path], ...]


@dataclasses.dataclass(frozen=True)
class Form:
    """Of all clips: frames, of which every n-th becomes a picture; width and height in pixels."""

    frames: int
    every: int
    size: int
    seed: int


def make_clips(
    root: str | Path,
    *,
    num_train: int = 300,
    num_val: int = 6,
    train_frames: int = 26,
    train_every: int = 25,
    frames: int = 150,
    every: int = 10,
    image_size: int = 160,
    seed: int = 0,
) -> ClipSet:
    """Draw clips: of train and val every n-th frame for a detector, of val the videos to track in.

    A detector learns more from many scenes than from many frames of one: the clips of train are
    many and short.

    Args:
        root: a new folder.
        num_train, num_val: clips.
        train_frames, frames: of a clip of train, and of val, at 25 a second.
        train_every, every: n.

    Raises:
        ValueError: if ``root`` is there already.
    """
    root = Path(root)
    if root.exists():
        raise ValueError(f"{root} exists; allowed: a new folder")
    form = Form(frames=frames, every=every, size=image_size, seed=seed)
    short = dataclasses.replace(form, frames=train_frames, every=train_every)
    train, _ = _write_split(root, "train", num_train, short)
    val, clips = _write_split(root, "val", num_val, form)
    logger.info("drew %d clips in %s", num_train + num_val, root)
    return ClipSet({"train": train, "val": val}, tuple(clips))


def _write_split(
    root: Path, split: str, count: int, form: Form
) -> tuple[dict[str, str], list[tuple[Path, Path]]]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    clips = []
    (root / split).mkdir(parents=True)
    for index in range(count):
        stem = f"{split}_{index:03d}"
        writer = ClipWriter(root, stem, form.size) if split == "val" else None
        drawn = draw_clip(form.seed, split, index, frames=form.frames, size=form.size)
        for frame, (pixels, objects) in enumerate(drawn):
            if writer is not None:
                writer.add(frame, pixels, objects)
            if frame % form.every == 0:
                name = f"{stem}_{frame:04d}.jpg"
                _write_picture(root / split / name, pixels)
                first = len(annotations) + 1
                shown = list(objects.values())
                record, boxes = coco_record(name, len(images) + 1, form.size, shown, first)
                images.append(record)
                annotations += boxes
        if writer is not None:
            clips.append(writer.close())
    path = root / "annotations" / f"instances_{split}.json"
    path.parent.mkdir(exist_ok=True)
    categories = [{"id": i, "name": name} for name, i in CATEGORY_IDS.items()]
    content = {"info": {"description": DESCRIPTION, "split": split}, "categories": categories}
    write_json(path, {**content, "images": images, "annotations": annotations})
    return {"json": str(path), "images": str(root / split)}, clips


def _write_picture(path: Path, pixels: np.ndarray) -> None:
    if not cv2.imwrite(str(path), pixels, [cv2.IMWRITE_JPEG_QUALITY, 92]):
        raise OSError(f"could not write {path}")


class ClipWriter:
    """A video in ``clips``, and its ground truth in ``gt``."""

    def __init__(self, root: Path, stem: str, size: int):
        self.video, self.truth = root / "clips" / f"{stem}.avi", root / "gt" / f"{stem}.txt"
        for path in (self.video, self.truth):
            path.parent.mkdir(exist_ok=True)
        code = cv2.VideoWriter.fourcc(*"MJPG")
        self._writer = cv2.VideoWriter(str(self.video), code, FPS, (size, size))
        if not self._writer.isOpened():
            raise OSError(f"could not write {self.video}")
        self._lines: list[str] = []

    def add(self, frame: int, pixels: np.ndarray, objects: dict[int, DrawnObject]) -> None:
        """Append a frame."""
        self._writer.write(pixels)
        self._lines += mot_truth(frame, objects)

    def close(self) -> tuple[Path, Path]:
        """The video's path, and that of its ground truth."""
        self._writer.release()
        self.truth.write_text("".join(self._lines), encoding="ascii")
        return self.video, self.truth
