"""Images of data set dicts, at any address that detectron2's ``PathManager`` opens."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from detectron2.data import detection_utils
from detectron2.utils.file_io import PathManager

from nanodet_d2.runtime.images import (
    MAX_PIXELS,
    ImageError,
    file_size,
    image_error,
    read_and_size,
)


def read_image(
    dataset_dict: dict[str, Any],
    image_format: str,
    *,
    max_pixels: int = MAX_PIXELS,
    at_least: tuple[int, int] | None = None,
    quick: bool = False,
) -> np.ndarray:
    """The image of a data set dict; fills in ``height`` and ``width`` if absent.

    Turned as its EXIF data asks for; transparency is dropped.

    Args:
        dataset_dict: with ``file_name``, a path or what else detectron2's ``PathManager`` opens.
        image_format: "BGR" or "RGB".
        max_pixels: a file that declares more is refused before it is decoded.
        at_least: (height, width); a JPEG file is decoded at a half, a quarter or an eighth of its
            size where that is still as large. The whole image if None.
        quick: plain JPEG files are decoded by OpenCV; for training, not for evaluation.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ImageError: if the file is missing, damaged, too large, of a format or depth that is not
            known, or not of the size that the dict tells.
    """
    path = dataset_dict["file_name"]
    local = _local_path(path)
    try:
        pixels, size = read_and_size(local, max_pixels=max_pixels, at_least=at_least, quick=quick)
        whole = np.broadcast_to(pixels[:1, :1], (*size, 3))
        detection_utils.check_image_size(dataset_dict, whole)
    except ImageError as error:
        raise _under_its_name(path, local, error) from error
    except Exception as error:  # of the check, which has its own kind
        raise image_error(path, error) from error
    return pixels if image_format == "BGR" else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def image_size(path: str, *, max_pixels: int | None = None) -> tuple[int, int]:
    """(height, width) from an image's header, as it is shown.

    Args:
        max_pixels: of the file; twice the usual limit if None, for lists of images are made before
            the mapper is known, whose ``max_pixels`` is the lower limit.

    Raises:
        ImageError: as :func:`read_image`; but what follows the header is not looked at.
    """
    local = _local_path(path)
    try:
        return file_size(local) if max_pixels is None else file_size(local, max_pixels=max_pixels)
    except ImageError as error:
        raise _under_its_name(path, local, error) from error


def _local_path(path: str) -> str:
    try:
        return PathManager.get_local_path(path)
    except Exception as error:  # a handler of addresses may raise anything
        raise image_error(path, error) from error


def _under_its_name(path: str, local: str, error: ImageError) -> ImageError:
    return error if local == path else image_error(path, OSError(error.reason))
