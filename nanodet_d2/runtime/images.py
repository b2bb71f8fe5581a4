"""Reading image files that anybody may have made.

What becomes of each kind of file is one table in ``projects/nanodet_plus/README.md``. Pillow reads
them; on a device that lacks it, OpenCV does, to the same pixels for JPEG, PNG, BMP, PPM and WebP
files, turned by their EXIF data or not. It differs for these:

- JPEG in CMYK, TIFF in YCbCr or with 16 bits per colour: by one grey level;
- transparent GIF and TIFF: what lies beneath is lost; GIF is read from OpenCV 4.12 on;
- WebP turned by EXIF data: shown as it lies before OpenCV 4.13;
- truncated JPEG: read before OpenCV 4.11, with grey for what is missing;
- files that declare too many pixels: refused after they were decoded, not before.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Union

import cv2
import numpy as np

from .jpeg import FINDS_TRUNCATION, decode_jpeg

if TYPE_CHECKING:
    from PIL import Image, ImageFile

ImageLike = Union[str, Path, np.ndarray]
# Not all of Pillow's: it would hand a file with PostScript in it to Ghostscript, whatever its name.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # by content, not by name
MAX_PIXELS = 89_478_485  # as Pillow: a quarter of a GiB as RGB
_MAX_PIXELS_OF_PILLOW = 2 * MAX_PIXELS
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# The same formats for OpenCV, which knows others, too.
_SIGNATURES = re.compile(
    rb"BM|GIF8|\xff\xd8\xff|\x89PNG|P[1-6]\s|II[*+]\0|MM\0[*+]|RIFF....WEBP", re.DOTALL
)
_EXIF_ORIENTATION = 0x0112
# orientation (a damaged file's may be anything): Pillow's Transpose
_EXIF_TURNS: dict[object, Any] = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
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


def load_image(source: ImageLike, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """An image (H, W, 3) uint8 BGR from a path, as training reads it; arrays are checked.

    Raises:
        ImageError: as :func:`read_file`.
        ValueError: for an array of another form.
    """
    if not isinstance(source, np.ndarray):
        return read_file(str(source), max_pixels=max_pixels)
    if source.ndim != 3 or source.shape[2] != 3 or source.dtype != np.uint8 or not source.size:
        raise ValueError(
            f"image of shape {source.shape}, {source.dtype}; allowed: (height, width, 3), uint8"
        )
    return source


def read_file(
    path: str, *, max_pixels: int = MAX_PIXELS, at_least: tuple[int, int] | None = None
) -> np.ndarray:
    """The image (H, W, 3) uint8 BGR of a file, turned as its EXIF data asks for; transparency is
    dropped. Without Pillow: see the module.

    Args:
        max_pixels: a file that declares more is refused before it is decoded (by OpenCV: after).
        at_least: (height, width); a JPEG file is decoded at a half, a quarter or an eighth of its
            size where that is still as large. The whole image if None.

    Raises:
        ImageError: if the file is missing, damaged, too large, or of a format or depth that is not
            known.
    """
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        return _read_by_opencv(path, max_pixels)
    with _named(path), _opened(path, max_pixels) as image:
        return _pixels(image, at_least)


def read_bytes(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """As :func:`read_file`, of a file's content; ``name`` stands for it in errors."""
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        with _named(name):
            return _decode_by_opencv(np.frombuffer(data, np.uint8), max_pixels)
    with _named(name), _recognised(io.BytesIO(data), max_pixels) as image:
        return _pixels(image, None)


def file_size(path: str, *, max_pixels: int = _MAX_PIXELS_OF_PILLOW) -> tuple[int, int]:
    """(height, width) from an image's header, as it is shown. Needs Pillow.

    Raises:
        ImageError: as :func:`read_file`; but what follows the header is not looked at.
    """
    with _named(path), _opened(path, max_pixels) as image:
        return _shown_size(image)


def read_and_size(
    path: str, *, max_pixels: int, at_least: tuple[int, int] | None, quick: bool = False
) -> tuple[np.ndarray, tuple[int, int]]:
    """As :func:`read_file`, with the (height, width) of the whole image. Needs Pillow.

    Args:
        quick: OpenCV decodes plain JPEG files. Where it and Pillow were built with different
            decoders, pixels may differ by a grey level.
    """
    with _named(path), _opened(path, max_pixels) as image:
        size = _shown_size(image)
        pixels = _by_opencv(image, at_least) if quick else None
        if pixels is None:
            pixels = _pixels(image, at_least)
        return pixels, size if at_least is not None else (pixels.shape[0], pixels.shape[1])


def _by_opencv(image: ImageFile.ImageFile, at_least: tuple[int, int] | None) -> np.ndarray | None:
    """The pixels of a JPEG file of which both make the same; None for any other, and for a damaged
    one, of which Pillow has to say what is wrong."""
    is_plain = image.format == "JPEG" and image.mode in ("L", "RGB")
    if not (FINDS_TRUNCATION and is_plain and image.fp is not None):
        return None
    if _EXIF_TURNS.get(image.getexif().get(_EXIF_ORIENTATION)) is not None:
        return None
    image.fp.seek(0)
    return decode_jpeg(image.fp.read(), image.size[::-1], at_least)


def _pixels(image: ImageFile.ImageFile, at_least: tuple[int, int] | None) -> np.ndarray:
    if at_least is not None:
        height, width = at_least if _shown_size(image) == image.size[::-1] else at_least[::-1]
        image.draft(None, (width, height))
    image.load()  # first: Pillow turns TIFF files by itself then, and says so in their EXIF
    turned = _turned(_in_8_bits(image))
    rgb = turned if turned.mode == "RGB" else turned.convert("RGB")
    return cv2.cvtColor(np.asarray(rgb), cv2.COLOR_RGB2BGR)


def _turned(image: Image.Image) -> Image.Image:
    """Pillow's own function writes the EXIF data anew, and fails where it is damaged."""
    method = _EXIF_TURNS.get(image.getexif().get(_EXIF_ORIENTATION))
    return image if method is None else image.transpose(method)


def _read_by_opencv(path: str, max_pixels: int) -> np.ndarray:
    with _named(path):
        _require_content(path)
        return _decode_by_opencv(np.fromfile(path, np.uint8), max_pixels)


def _decode_by_opencv(data: np.ndarray, max_pixels: int) -> np.ndarray:
    _require_bytes(len(data))
    if _SIGNATURES.match(data[:12].tobytes()) is None:
        raise OSError(f"not an image of the formats {', '.join(FORMATS)}")
    image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    if image is None:
        raise OSError("damaged, or of a kind that OpenCV does not read")
    _require_pixels(image.shape[1], image.shape[0], max_pixels)
    return image


def _shown_size(image: ImageFile.ImageFile) -> tuple[int, int]:
    width, height = image.size
    sideways = _exif(image).get(_EXIF_ORIENTATION) in _EXIF_SIDEWAYS
    if hasattr(image, "_tile_size"):  # a TIFF file, whose size Pillow 11 tells as shown
        sideways = False
    return (width, height) if sideways else (height, width)


def _exif(image: ImageFile.ImageFile) -> Image.Exif:
    """Without decoding a PNG file, as Pillow would, unless it says more behind its pixels."""
    from PIL import Image

    if image.format != "PNG" or image.fp is None or _tells_more_at_its_end(image.fp):
        return image.getexif()
    return Image.Image.getexif(image)


def _tells_more_at_its_end(png: IO[bytes]) -> bool:
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
def _opened(path: str, max_pixels: int) -> Iterator[ImageFile.ImageFile]:
    """The image of a file, of which only the header has been read."""
    _require_content(path)
    with open(path, "rb") as file, _recognised(file, max_pixels) as image:
        yield image


@contextmanager
def _recognised(file: IO[bytes], max_pixels: int) -> Iterator[ImageFile.ImageFile]:
    from PIL import Image, UnidentifiedImageError

    _require_bytes(file.seek(0, os.SEEK_END))
    file.seek(0)
    try:
        image = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError as error:
        raise OSError(f"not an image of the formats {', '.join(FORMATS)}") from error
    with image:
        _require_pixels(*image.size, max_pixels)
        yield image


def _require_content(path: str) -> None:
    if not os.path.isfile(path):  # a pipe or a device would never end
        raise OSError("no such file" if not os.path.exists(path) else "not a regular file")


def _require_bytes(count: int) -> None:
    if count == 0:
        raise OSError("the file is empty")


def _require_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise OSError(f"{width} x {height} pixels declared, max_pixels is {max_pixels}")


@contextmanager
def _named(path: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a decoder may raise anything on bytes that were made to fail
        raise image_error(path, error) from error


def image_error(path: str, error: Exception) -> ImageError:
    """The error for a file, in one line that names it."""
    reason = " ".join(str(error).split()) or repr(error)
    message = printable(f"image {path} cannot be used: {reason}")
    return ImageError(message, path=path, reason=reason)


def _in_8_bits(image: Image.Image) -> Image.Image:
    """The image with 16-bit greyscale reduced to its upper bytes; Pillow would clip it at 255."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        from PIL import Image

        exif = image.getexif()
        upper = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
        upper.getexif().update(exif)
        return upper
    if image.mode in _DEEP_MODES:
        raise OSError(f"32 bits per pixel (mode {image.mode}); allowed: 8 or 16")
    return image
