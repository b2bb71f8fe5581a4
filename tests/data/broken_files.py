"""Image files of ten broken kinds, and of odd ones that are fine."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (96, 96)  # width, height


def noise(seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)
    return Image.fromarray(pixels)


def encoded(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def png_that_declares(width: int, height: int) -> bytes:
    """A PNG file of a few bytes with a huge size in its header."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(*x) for x in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    )


def break_file(kind: str, path: Path) -> None:
    """Put a broken image in the place of ``path``."""
    path.unlink()
    jpeg, png = encoded(noise(), "JPEG"), encoded(noise(), "PNG")
    if kind == "link to nothing":
        path.symlink_to("nowhere.png")
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_bytes(
            {
                "truncated JPEG": jpeg[: len(jpeg) // 2],
                "truncated PNG": png[: len(png) // 2],
                "zero bytes": b"",
                "text": b"<html>404 Not Found</html>",
                "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 96 96\n%%EndComments\n",
                "damaged PNG": png[:41] + bytes(8) + png[49:],  # the start of its zlib stream
                "bomb": png_that_declares(30_000, 20_000),
                "another size": encoded(noise().resize((50, 40)), "PNG"),
                "32-bit TIFF": encoded(Image.new("F", SIZE), "TIFF"),
                "GIF without pixels": b"GIF89a" + struct.pack("<HH", *SIZE) + b"\x00\x00\x00;",
            }[kind]
        )


KINDS = (
    "truncated JPEG",
    "truncated PNG",
    "zero bytes",
    "text",
    "PostScript",
    "damaged PNG",
    "bomb",
    "another size",
    "32-bit TIFF",
    "link to nothing",
    "folder",
    "GIF without pixels",
)
