"""Where frames come from, and where they are written with boxes."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Union

import cv2
import numpy as np

from .files import IMAGE_SUFFIXES, list_images
from .images import MAX_PIXELS, load_image

DEFAULT_FPS = 25.0  # of what does not tell its own…
MAX_FPS = 1000.0  # …or tells what cannot be: -1, not a number, the ticks of a clock
# A container tells about how many frames it has; with fewer than this share of them it broke off.
COMPLETE = 0.98


@dataclasses.dataclass(frozen=True)
class Frame:
    """A picture, or a frame of a video.

    Attributes:
        image: (H, W, 3) uint8 BGR.
        name: of its file.
        number: within a video; None of a picture.
        index: its place in the source, from 0 on.
        seconds: when a camera gave it, since it was first asked; None of a file.
    """

    image: np.ndarray
    name: str
    number: int | None = None
    index: int = 0
    seconds: float | None = None


class Pictures:
    """The pictures of a file or folder; those that cannot be read are left out and named.

    Args:
        every: only every n-th picture is read.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it holds no picture.
    """

    def __init__(self, path: Path, output: Path, *, max_pixels: int = MAX_PIXELS, every: int = 1):
        self.max_pixels = max_pixels
        self.every = _required(every)
        self.paths = list_images([path])[::every]
        self.root = path if path.is_dir() else path.parent
        self.folder = output / "pictures"
        self.targets = [self.folder / x.relative_to(self.root) for x in self.paths]
        self.total: int | None = len(self.paths)
        self.problems: list[str] = []

    def __iter__(self) -> Iterator[Frame]:
        for i, path in enumerate(self.paths):
            try:
                image = load_image(path, max_pixels=self.max_pixels)
            except ValueError as error:  # one bad picture does not cost the others
                self.problems.append(str(error))
                continue
            name = path.relative_to(self.root).as_posix()
            yield Frame(image, name, index=i * self.every)

    def write(self, frame: Frame, drawn: np.ndarray) -> None:
        """Write the picture (H, W, 3) uint8 BGR that was made of a frame."""
        path = self.folder / frame.name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not cv2.imwrite(str(path), drawn):
            raise ValueError(f"{path} cannot be written")

    def close(self) -> None:
        pass


class Video:
    """The frames of a video file, or of a camera by its index.

    Args:
        every: only every n-th frame is decoded, and written.

    Raises:
        ValueError: if it does not open; while iterating, after the last frame, if it broke off.
    """

    def __init__(self, source: str, output: Path, *, every: int = 1):
        self.every = _required(every)
        index = camera_index(source)
        self.camera = index is not None
        self.name = source if index is None else f"camera {index}"
        self.capture = cv2.VideoCapture(source if index is None else index)
        if not self.capture.isOpened():
            kind = "does not open" if self.camera else "is no video that OpenCV can read"
            raise ValueError(f"{self.name} {kind}")
        count = self.capture.get(cv2.CAP_PROP_FRAME_COUNT)
        known = 0 < count < math.inf and not self.camera
        self._count = int(count) if known else None
        self.total = -(-self._count // every) if self._count is not None else None
        fps = self.capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps <= MAX_FPS else DEFAULT_FPS
        self.path = output / (f"camera{index}.mp4" if self.camera else f"{Path(source).stem}.mp4")
        self.paths = [] if self.camera else [Path(source)]
        self.targets = [self.path]
        self.problems: list[str] = []
        self._writer: cv2.VideoWriter | None = None
        self._written, self._start = 0, 0.0

    def __iter__(self) -> Iterator[Frame]:
        number, start = 0, time.perf_counter()
        name = self.path.stem if self.camera else Path(self.name).name
        while True:
            if number % self.every:
                read = self.capture.grab()
            else:
                read, image = self.capture.read()
            if not read:
                break
            if not number % self.every:
                seconds = time.perf_counter() - start if self.camera else None
                yield Frame(image, name, number, number, seconds)
            number += 1
        if self.camera:
            raise ValueError(f"{self.name} gave no more pictures after {number}")
        if number == 0 or (self._count and number < COMPLETE * self._count - 1):
            raise ValueError(f"{self.name} breaks off after {number} of {self._count} frames")

    def write(self, frame: Frame, drawn: np.ndarray) -> None:
        """Append a frame (H, W, 3) uint8 BGR; a camera's as often as its time takes."""
        if self._writer is None:
            self._writer, self._start = self._open(*drawn.shape[:2]), time.monotonic()
        copies = 1
        if self.camera:
            due = round((time.monotonic() - self._start) * self.fps)
            copies = max(1, due - self._written)
        for _ in range(copies):
            self._writer.write(drawn)
        self._written += copies

    def _open(self, height: int, width: int) -> cv2.VideoWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        code = cv2.VideoWriter.fourcc(*"mp4v")
        fps = self.fps if self.camera else self.fps / self.every
        writer = cv2.VideoWriter(str(self.path), code, fps, (width, height))
        if not writer.isOpened():
            raise ValueError(f"{self.path} cannot be written")
        return writer

    def close(self) -> None:
        self.capture.release()
        if self._writer is not None:
            self._writer.release()


Source = Union[Pictures, Video]


def _required(every: int) -> int:
    if every < 1:
        raise ValueError(f"every {every} frames; allowed: 1 or more")
    return every


def camera_index(name: str) -> int | None:
    """Of "camera:0", or of "0"; None for what is no camera."""
    number = name.removeprefix("camera:")
    return int(number) if number.isdecimal() else None


def open_inputs(
    names: Sequence[str], output: Path, *, max_pixels: int = MAX_PIXELS, every: int = 1
) -> list[Source]:
    """The sources of some names: cameras (``camera:0``), pictures, folders or videos.

    Args:
        max_pixels: pictures that declare more are left out.
        every: only every n-th frame or picture.

    Raises:
        FileNotFoundError, ValueError: if one cannot be used, or a result would overwrite a
            picture, a video, or another result.
    """
    sources = [_open(name, output, max_pixels, every) for name in names]
    inputs = {path.resolve() for source in sources for path in source.paths}
    targets: set[Path] = set()
    for path in (target for source in sources for target in source.targets):
        target = path.resolve()
        if target in inputs or target in targets:
            raise ValueError(f"{path} would be overwritten: choose an --output for each input")
        targets.add(target)
    return sources


def _open(name: str, output: Path, max_pixels: int, every: int) -> Source:
    path = Path(name)
    if camera_index(name) is not None:
        return Video(name, output, every=every)
    if not path.exists():
        raise FileNotFoundError(f"{name} is neither a file, a folder nor the index of a camera")
    if path.is_dir() or path.suffix.lower() in IMAGE_SUFFIXES:
        return Pictures(path, output, max_pixels=max_pixels, every=every)
    return Video(name, output, every=every)
