"""Reading image files that anybody may have made.

What becomes of each kind of file is one table in ``projects/nanodet_plus/README.md``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
from detectron2.data import detection_utils
from detectron2.utils.file_io import PathManager
from PIL import Image, UnidentifiedImageError

# Not all of Pillow's: it would hand a file with PostScript in it to Ghostscript, whatever its name.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # by content, not by name
MAX_PIXELS = 89_478_485  # as Pillow: a quarter of a GiB as RGB
_MAX_PIXELS_OF_PILLOW = 2 * MAX_PIXELS
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_EXIF_ORIENTATION = 0x0112
_EXIF_SIDEWAYS = (5, 6, 7, 8)  # orientations that swap height and width
# What tears a line, and surrogates: bytes of a name that is not UTF-8, which cannot be written.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_DEEP_MODES = ("I", "F")  # 32 bits per pixel, whose black and white nobody knows


class ImageError(ValueError):
    """An image file cannot be used; the message names its path and why.

    Only the message is positional, so that a ``DataLoader`` can raise it again out of a worker.
    """

    def __init__(self, message: str, *, path: str = "", reason: str = ""):
        super().__init__(message)
        self.path = path
        self.reason = reason


def printable(text: str) -> str:
    """The text in one line that any log or file takes, with the rest as Python's escapes."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def check_max_pixels(max_pixels: int) -> int:
    """``max_pixels``, or ``ValueError`` for one that cannot be kept."""
    if not 1 <= max_pixels <= _MAX_PIXELS_OF_PILLOW:
        raise ValueError(f"max_pixels {max_pixels}; allowed: 1 to {_MAX_PIXELS_OF_PILLOW}")
    return max_pixels


def read_image(
    dataset_dict: dict[str, Any],
    image_format: str,
    *,
    max_pixels: int = MAX_PIXELS,
    at_least: tuple[int, int] | None = None,
) -> np.ndarray:
    """The image of a data set dict; fills in ``height`` and ``width`` if absent.

    Turned as its EXIF data asks for; transparency is dropped.

    Args:
        dataset_dict: with ``file_name``, a path or what else detectron2's ``PathManager`` opens.
        image_format: "BGR" or "RGB".
        max_pixels: a file that declares more is refused before it is decoded.
        at_least: (height, width); a JPEG file is decoded at a half, a quarter or an eighth of its
            size where that is still as large. The whole image if None.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ImageError: if the file is missing, damaged, too large, of a format or depth that is not
            known, or not of the size that the dict tells.
    """
    path = dataset_dict["file_name"]
    with _named(path), _opened(path, max_pixels) as image:
        size = _shown_size(image)
        if at_least is not None:
            height, width = at_least if size == image.size[::-1] else at_least[::-1]
            image.draft(None, (width, height))
        image.load()  # first: Pillow turns TIFF files by itself then, and says so in their EXIF
        turned = detection_utils._apply_exif_orientation(_in_8_bits(image))
        pixels = detection_utils.convert_PIL_to_numpy(turned, image_format)
        whole = pixels if at_least is None else np.broadcast_to(pixels[:1, :1], (*size, 3))
        detection_utils.check_image_size(dataset_dict, whole)
    return pixels


def image_size(path: str, *, max_pixels: int = _MAX_PIXELS_OF_PILLOW) -> tuple[int, int]:
    """(height, width) from an image's header, as it is shown.

    Lists of images are made before the mapper is known, whose ``max_pixels`` is the lower limit.

    Raises:
        ImageError: as :func:`read_image`; but what follows the header is not looked at.
    """
    with _named(path), _opened(path, max_pixels) as image:
        return _shown_size(image)


def _shown_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    sideways = _exif(image).get(_EXIF_ORIENTATION) in _EXIF_SIDEWAYS
    if hasattr(image, "_tile_size"):  # a TIFF file, whose size Pillow 11 tells as shown
        sideways = False
    return (width, height) if sideways else (height, width)


def _exif(image: Image.Image) -> Image.Exif:
    """Without decoding a PNG file, as Pillow would, unless it says more behind its pixels."""
    if image.format != "PNG" or _tells_more_at_its_end(image.fp):
        return image.getexif()
    return Image.Image.getexif(image)


def _tells_more_at_its_end(png: BinaryIO) -> bool:
    """Whether texts or EXIF data follow the pixels; the file's position stays."""
    start = png.tell()
    png.seek(len(_PNG_SIGNATURE))
    kind, pixels, found = b"", False, False
    while kind != b"IEND" and not found:
        head = png.read(8)
        if len(head) < 8:
            break
        kind = head[4:]
        pixels = pixels or kind == b"IDAT"
        found = pixels and kind in (b"eXIf", b"tEXt", b"zTXt", b"iTXt")
        png.seek(int.from_bytes(head[:4], "big") + 4, os.SEEK_CUR)
    png.seek(start)
    return found


@contextmanager
def _opened(path: str, max_pixels: int) -> Iterator[Image.Image]:
    """The image, of which only the header has been read."""
    local = PathManager.get_local_path(path)
    if not os.path.isfile(local):  # a pipe or a device would never end
        raise OSError("no such file" if not os.path.exists(local) else "not a regular file")
    if os.path.getsize(local) == 0:
        raise OSError("the file is empty")
    with open(local, "rb") as file, Image.open(file, formats=FORMATS) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise OSError(f"{width} x {height} pixels declared, max_pixels is {max_pixels}")
        yield image


@contextmanager
def _named(path: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a decoder may raise anything on bytes that were made to fail
        if isinstance(error, UnidentifiedImageError):
            error = OSError(f"not an image of the formats {', '.join(FORMATS)}")
        reason = " ".join(str(error).split()) or repr(error)
        message = printable(f"image {path} cannot be used: {reason}")
        raise ImageError(message, path=path, reason=reason) from error


def _in_8_bits(image: Image.Image) -> Image.Image:
    """The image with 16-bit greyscale reduced to its upper bytes; Pillow would clip it at 255."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        exif = image.getexif()
        upper = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
        upper.getexif().update(exif)
        return upper
    if image.mode in _DEEP_MODES:
        raise OSError(f"32 bits per pixel (mode {image.mode}); allowed: 8 or 16")
    return image
