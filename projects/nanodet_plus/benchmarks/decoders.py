#!/usr/bin/env python
"""Decoders of JPEG files on one thread: milliseconds and pixels for each kind of file.

All of them are libjpeg-turbo inside; what lies around it differs. "evaluation" and "training" are
this project's readers, from the file to checked pixels. simplejpeg and PyTurboJPEG are tried where
they are installed.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import common
import cv2
import numpy as np
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg

from nanodet_d2.runtime.images import read_and_size

ORIENTATION, SIDEWAYS = 0x0112, 6  # of EXIF
MAX_PIXELS = 10**8
Decode = Callable[[Path], np.ndarray]  # (H, W, 3) uint8 BGR of a file


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0], output="decoders.json")
    parser.add_argument("--images", type=Path, required=True, help="a folder of JPEG files")
    parser.add_argument("--count", type=int, default=40, help="of them")
    parser.set_defaults(threads=1, repeats=5, device="cpu")
    args = parser.parse_args()
    cv2.setNumThreads(0)
    common.start(args)

    sides = {"evaluation": evaluation, "training": training, **decoders()}
    rows, result = [], {}
    with tempfile.TemporaryDirectory() as folder:
        sources = sorted(args.images.glob("*.jpg"))[: args.count]
        for kind, files in kinds(sources, Path(folder)).items():
            able = {name: x for name, x in sides.items() if reads(x, files[0])}
            times = common.median_ms(
                {name: over(x, files) for name, x in able.items()},
                repeats=args.repeats,
                device="cpu",
                warmup=1,
            )
            result[kind] = {name: ms / len(files) for name, ms in times.items()}
            cells = [
                f"{result[kind][name]:.2f} ({apart(evaluation, able[name], files)})"
                if name in able
                else "–"
                for name in sides
            ]
            size = sum(file.stat().st_size for file in files) / len(files) / 1e3
            rows.append([kind, f"{size:.0f}", *cells])
    common.show("ms per image (largest difference from the evaluation's pixels, grey levels)")
    common.show(common.table(rows, ["kind", "kB", *sides]))
    common.save(args.output, {"ms": result}, "cpu")


def over(decode: Decode, files: list[Path]) -> Callable[[], Any]:
    return lambda: [decode(file) for file in files]


def evaluation(path: Path) -> np.ndarray:
    return read_and_size(str(path), max_pixels=MAX_PIXELS, at_least=None)[0]


def training(path: Path) -> np.ndarray:
    return read_and_size(str(path), max_pixels=MAX_PIXELS, at_least=None, quick=True)[0]


def decoders() -> dict[str, Decode]:
    """Of the file's bytes alone: nothing is checked."""
    found: dict[str, Decode] = {
        "OpenCV": lambda path: cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR),
        "torchvision": by_torchvision,
    }
    try:
        import simplejpeg
    except ImportError:
        pass
    else:
        found["simplejpeg"] = lambda path: simplejpeg.decode_jpeg(path.read_bytes(), "BGR")
    try:
        from turbojpeg import TurboJPEG

        turbo = TurboJPEG()
    except (ImportError, RuntimeError):  # the package, or the library that it looks for
        pass
    else:
        found["PyTurboJPEG"] = lambda path: turbo.decode(path.read_bytes())
    return found


def by_torchvision(path: Path) -> np.ndarray:
    data = torch.from_numpy(np.fromfile(path, np.uint8))
    rgb = decode_jpeg(data, ImageReadMode.RGB, apply_exif_orientation=True)
    return cv2.cvtColor(rgb.permute(1, 2, 0).numpy(), cv2.COLOR_RGB2BGR)


def reads(decode: Decode, path: Path) -> bool:
    try:
        return decode(path) is not None
    except (RuntimeError, ValueError):
        return False


def apart(first: Decode, second: Decode, files: list[Path]) -> Any:
    """The largest difference of two decoders' pixels, in grey levels."""
    pairs = [(first(file), second(file)) for file in files]
    if any(a.shape != b.shape for a, b in pairs):
        return "not turned"
    return max(int(np.abs(a.astype(np.int16) - b).max()) for a, b in pairs)


def kinds(sources: list[Path], folder: Path) -> Mapping[str, list[Path]]:
    """Name -> the files as they are, and written again in other ways."""
    exif = Image.Exif()
    exif[ORIENTATION] = SIDEWAYS
    options: dict[str, tuple[str, dict[str, Any]]] = {
        "4:2:0": ("RGB", {"subsampling": "4:2:0"}),
        "4:4:4": ("RGB", {"subsampling": "4:4:4"}),
        "progressive": ("RGB", {"progressive": True}),
        "grey": ("L", {}),
        "CMYK": ("CMYK", {}),
        "turned by EXIF data": ("RGB", {"exif": exif}),
    }
    found = {"as they are": sources}
    for i, (kind, (mode, settings)) in enumerate(options.items()):
        found[f"{kind}, quality 90"] = [
            written(source, folder / f"{i}-{source.name}", mode, settings) for source in sources
        ]
    return found


def written(source: Path, target: Path, mode: str, settings: Mapping[str, Any]) -> Path:
    with Image.open(source) as image:
        buffer = io.BytesIO()
        image.convert("RGB").convert(mode).save(buffer, "JPEG", quality=90, **settings)
    target.write_bytes(buffer.getvalue())
    return target


if __name__ == "__main__":
    main()
