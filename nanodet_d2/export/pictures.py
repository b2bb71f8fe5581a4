"""The pictures that exported files are verified with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nanodet_d2.data.shapes import draw_picture
from nanodet_d2.runtime.files import list_images
from nanodet_d2.runtime.images import load_image
from nanodet_d2.runtime.metadata import InputDescription

from .calibration import spread
from .job import Job

MAX_IMAGES = 8  # of those given, or of those to calibrate with
# Height and width of the drawn ones, as shares of a square's side: no way of resizing that mixes up
# the two goes unnoticed.
DRAWN = ((0.7, 1.0), (1.0, 0.7), (0.8, 0.9), (1.0, 0.8))
BATCH = 2  # images that a dynamic file takes at once, at another size


def verification_images(
    job: Job, metadata_input: InputDescription, calibration: Sequence[Path]
) -> list[np.ndarray]:
    """Images (H, W, 3) uint8 BGR: those that the job gives; else for INT8, which has to find things
    in them, some to calibrate with; else drawn ones.

    Args:
        metadata_input: of the model.
        calibration: pictures of an INT8 job.

    Raises:
        FileNotFoundError, ValueError: for pictures that are not there, or are none.
    """
    if job.images:
        return [load_image(path) for path in list_images(job.images)[:MAX_IMAGES]]
    if job.int8:
        return [load_image(path) for path in spread(calibration, MAX_IMAGES)]
    return drawn_images(metadata_input.height, metadata_input.width)


def drawn_images(height: int, width: int) -> list[np.ndarray]:
    """Shapes among clutter, wider or taller, and larger than a network's input: they are resized as
    photographs are."""
    side = max(height, width) * 3 // 2
    return [
        np.ascontiguousarray(
            draw_picture(0, "val", i, side)[0][: round(rows * side), : round(columns * side)]
        )
        for i, (rows, columns) in enumerate(DRAWN)
    ]


def batch_of(images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """``BATCH`` of some images; a mirrored one where there is one only."""
    mirrored = np.ascontiguousarray(images[0][:, ::-1])
    return [*images, mirrored][:BATCH]


def other_size(described: InputDescription) -> tuple[int, int]:
    """Another (height, width) that a dynamic file takes, higher and of another ratio."""
    step, height, width = described.size_divisor, described.height, described.width
    return height + step, width - step if width > step else width + 2 * step
