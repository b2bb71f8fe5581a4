"""Image files on a device that lacks Pillow: OpenCV reads them as Pillow does."""

from __future__ import annotations

import sys
from contextlib import contextmanager

import cv2
import numpy as np
import pytest
from PIL import Image

from nanodet_d2.runtime.images import ImageError, load_image, read_file
from tests.data.broken_files import KINDS, break_file, encoded, noise, png_that_declares

OPENCV = tuple(int(x) for x in cv2.__version__.split(".")[:2])
NOT_FOR_OPENCV = ("another size",)  # than a data set says: there is none here


@contextmanager
def without_pillow():
    with pytest.MonkeyPatch.context() as patch:
        for name in [x for x in sys.modules if x.partition(".")[0] == "PIL"]:
            patch.setitem(sys.modules, name, None)
        patch.setitem(sys.modules, "PIL", None)
        yield


def both(path) -> tuple[np.ndarray, np.ndarray]:
    """The pixels by Pillow and by OpenCV."""
    by_pillow = read_file(str(path))
    with without_pillow():
        return by_pillow, read_file(str(path))


def smooth(channels: int = 3) -> Image.Image:
    """61 x 83 px, with an edge or two, as photographs are."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (12, 16, channels), dtype=np.uint8)
    pixels = cv2.resize(small, (83, 61), interpolation=cv2.INTER_CUBIC)
    return Image.fromarray(pixels)


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def with_alpha() -> Image.Image:
    image = smooth()
    image.putalpha(smooth(1))
    return image


SAME = {
    **{f"JPEG {q}": encoded(smooth(), "JPEG", quality=q) for q in (10, 75, 100)},
    **{f"JPEG 4:4:4 or so {s}": encoded(smooth(), "JPEG", subsampling=s) for s in (0, 1, 2)},
    "progressive JPEG": encoded(smooth(), "JPEG", progressive=True),
    "grey JPEG": encoded(smooth().convert("L"), "JPEG"),
    **{f"turned JPEG {i}": encoded(smooth(), "JPEG", exif=turned(i)) for i in range(10)},
    "PNG": encoded(smooth(), "PNG"),
    **{f"PNG {x}": encoded(smooth().convert(x), "PNG") for x in ("L", "1", "P")},
    "PNG with alpha": encoded(with_alpha(), "PNG"),
    "grey PNG with alpha": encoded(with_alpha().convert("LA"), "PNG"),
    "PNG with a transparent colour": encoded(smooth(), "PNG", transparency=(1, 2, 3)),
    **{f"turned PNG {i}": encoded(smooth(), "PNG", exif=turned(i)) for i in range(10)},
    "BMP": encoded(smooth(), "BMP"),
    "PPM": encoded(smooth(), "PPM"),
    "TIFF": encoded(smooth(), "TIFF", compression="tiff_lzw"),
    **{f"turned TIFF {i}": encoded(smooth(), "TIFF", exif=turned(i)) for i in (1, 3, 6)},
    "WebP": encoded(smooth(), "WEBP", quality=80),
    "WebP with alpha": encoded(with_alpha(), "WEBP", lossless=True),
}


@pytest.mark.parametrize("name", SAME)
def test_same_pixels(tmp_path, name):
    (tmp_path / "x").write_bytes(SAME[name])
    by_pillow, by_opencv = both(tmp_path / "x")
    sideways = name.startswith("turned") and name[-1] in "5678"
    assert by_opencv.shape == ((83, 61, 3) if sideways else (61, 83, 3))
    assert by_opencv.dtype == np.uint8
    np.testing.assert_array_equal(by_opencv, by_pillow)


@pytest.mark.parametrize("shape", [(40, 50), (40, 50, 3)])
def test_16_bits(tmp_path, shape):
    pixels = np.random.default_rng(0).integers(0, 2**16, shape).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "x.png"), pixels)
    np.testing.assert_array_equal(*both(tmp_path / "x.png"))


@pytest.mark.parametrize(
    "name, data",
    [
        ("JPEG in CMYK", encoded(smooth().convert("CMYK"), "JPEG")),
        ("TIFF in YCbCr", encoded(smooth().convert("YCbCr"), "TIFF")),
    ],
)
def test_what_differs_by_a_grey_level(tmp_path, name, data):
    (tmp_path / "x").write_bytes(data)
    by_pillow, by_opencv = both(tmp_path / "x")
    assert np.abs(by_pillow.astype(int) - by_opencv).max() == 1


@pytest.mark.skipif(OPENCV < (4, 13), reason="this OpenCV does not turn WebP files")
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_turned_webp(tmp_path, orientation):
    data = encoded(smooth(), "WEBP", lossless=True, exif=turned(orientation))
    (tmp_path / "x").write_bytes(data)
    np.testing.assert_array_equal(*both(tmp_path / "x"))


@pytest.mark.skipif(OPENCV < (4, 12), reason="this OpenCV reads no GIF and fills torn JPEG files")
@pytest.mark.parametrize("kind", [x for x in KINDS if x not in NOT_FOR_OPENCV])
def test_broken_files_are_named(tmp_path, kind):
    path = tmp_path / "x.png"
    noise().save(path)
    break_file(kind, path)
    with without_pillow(), pytest.raises(ImageError, match="x.png cannot be used: ."):
        read_file(str(path))


@pytest.mark.parametrize("form", ["JPEG2000", "ICO", "TGA"])
def test_formats_that_pillow_does_not_get_are_refused(tmp_path, form):
    (tmp_path / "x.jpg").write_bytes(encoded(smooth(), form))
    message = "x.jpg cannot be used: not an image of the formats BMP, GIF, JPEG, PNG, PPM, TIFF"
    with pytest.raises(ImageError, match=message):
        read_file(str(tmp_path / "x.jpg"))
    with without_pillow(), pytest.raises(ImageError, match=message):
        read_file(str(tmp_path / "x.jpg"))


def test_too_many_pixels_are_refused(tmp_path):
    smooth().save(tmp_path / "x.png")
    with without_pillow():
        assert read_file(str(tmp_path / "x.png"), max_pixels=61 * 83).shape == (61, 83, 3)
        with pytest.raises(ImageError, match="83 x 61 pixels declared, max_pixels is 5062"):
            read_file(str(tmp_path / "x.png"), max_pixels=61 * 83 - 1)
        (tmp_path / "bomb.png").write_bytes(png_that_declares(60_000, 60_000))
        with pytest.raises(ImageError, match="bomb.png cannot be used: .*pixels"):
            read_file(str(tmp_path / "bomb.png"))


def test_names_that_ascii_lacks(tmp_path):
    path = tmp_path / "zwölf 猫.png"
    smooth().save(path)
    np.testing.assert_array_equal(*both(path))


def test_arrays_are_checked_and_paths_read(tmp_path):
    smooth().save(tmp_path / "x.png")
    pixels = load_image(tmp_path / "x.png")
    assert load_image(pixels) is pixels
    np.testing.assert_array_equal(pixels, load_image(str(tmp_path / "x.png")))
    with pytest.raises(ValueError, match=r"image of shape \(61, 83\), uint8; allowed"):
        load_image(pixels[:, :, 0])
