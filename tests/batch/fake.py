"""A detector without a network, and pictures for it. Other processes import it quickly."""

from __future__ import annotations

import functools
import os
import signal
import time
from pathlib import Path

import cv2
import numpy as np

from nanodet_d2.batch import Work
from nanodet_d2.runtime import Detections
from tests.fake_file import metadata

BLUE, GREEN, RED = (255, 0, 0), (0, 255, 0), (0, 0, 255)  # BGR
METADATA = metadata(32, 32)


class Fake:
    """Finds the picture's middle as a lamp, whose score is the brightness of its first pixel; dies
    of blue ones, fails on red ones, and never ends with green ones."""

    backend, path, max_pixels = "fake", "fake.onnx", 10**6
    metadata, class_names = METADATA, METADATA.class_names

    def __call__(self, image: np.ndarray) -> Detections:
        height, width = image.shape[:2]
        color = tuple(image[0, 0].tolist())
        if color == BLUE:
            os.kill(os.getpid(), signal.SIGKILL)
        if color == RED:
            raise RuntimeError("no kernel for red")
        if color == GREEN:
            time.sleep(60)
        boxes = np.array([[width / 4, height / 4, width / 2, height / 2]], np.float32)
        return Detections(
            xyxy=boxes,
            confidence=np.array([color[0] / 255], np.float32),
            class_id=np.ones(1, np.int64),
            class_names=self.class_names,
            image_size=(height, width),
        )


class Slow(Fake):
    """Takes as long as a real one, so that there is time to kill it."""

    def __call__(self, image: np.ndarray) -> Detections:
        time.sleep(0.02)
        return super().__call__(image)


class Other(Fake):
    """The same on a machine with another model."""

    path = "other.onnx"


class Unopenable(Fake):
    def __init__(self) -> None:
        os._exit(3)


class BrokenEngine(Fake):
    def __call__(self, image: np.ndarray) -> Detections:
        raise RuntimeError("CUDA is gone")


def work(kind: type[Fake] = Fake, folder: Path | str = ".", **options) -> Work:
    """The work of a detector; relative names start from a folder."""
    return Work(functools.partial(kind), threads=1, folder=str(Path(folder).resolve()), **options)


def draw(path: Path, color: int | tuple[int, int, int] = 128, size=(24, 16)) -> Path:
    """Write a picture (width, height) of one colour or grey level."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.full((size[1], size[0], 3), color, np.uint8)
    assert cv2.imwrite(str(path), image)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    files = (x for x in sorted(folder.rglob("*")) if x.is_file())
    return {x.relative_to(folder).as_posix(): x.read_bytes() for x in files}
