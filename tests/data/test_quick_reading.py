"""JPEG files in training: OpenCV decodes the plain ones, to Pillow's pixels and to its verdicts."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from nanodet_d2.data.images import read_image
from nanodet_d2.runtime import images as module
from nanodet_d2.runtime.images import ImageError, read_and_size
from nanodet_d2.runtime.jpeg import FINDS_TRUNCATION, decode_jpeg, fraction
from tests.data.broken_files import encoded

needs_new_opencv = pytest.mark.skipif(
    not FINDS_TRUNCATION, reason="this OpenCV fills truncated files with grey and is not used"
)


def picture(width: int = 83, height: int = 61) -> Image.Image:
    """Smooth, with an edge or two, as photographs are."""
    small = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    pixels = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    pixels[20:30, 10:40] = (250, 10, 60)
    return Image.fromarray(pixels)


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


PLAIN = {
    **{f"quality {q}": encoded(picture(), "JPEG", quality=q) for q in (10, 75, 95, 100)},
    **{f"subsampling {s}": encoded(picture(), "JPEG", subsampling=s) for s in (0, 1, 2)},
    "progressive": encoded(picture(), "JPEG", progressive=True, quality=90),
    "optimised": encoded(picture(), "JPEG", optimize=True),
    "restart markers": encoded(picture(), "JPEG", restart_marker_blocks=2),
    "grey": encoded(picture().convert("L"), "JPEG"),
    "not YCbCr": encoded(picture(), "JPEG", keep_rgb=True),
    "one pixel": encoded(picture(1, 1), "JPEG"),
    "not turned": encoded(picture(), "JPEG", exif=turned(1)),
    "a turn that there is not": encoded(picture(), "JPEG", exif=turned(9)),
}
OTHERS = {
    **{f"turned {i}": encoded(picture(), "JPEG", exif=turned(i)) for i in range(2, 9)},
    "CMYK": encoded(picture().convert("CMYK"), "JPEG"),
    "PNG": encoded(picture(), "PNG"),
    "BMP": encoded(picture(), "BMP"),
    "WebP": encoded(picture(), "WEBP"),
}


def read(path, quick: bool, at_least=None) -> tuple[np.ndarray, tuple[int, int]]:
    return read_and_size(str(path), max_pixels=10**6, at_least=at_least, quick=quick)


@pytest.fixture
def decoded(monkeypatch) -> list:
    """What OpenCV was asked to decode, and made of it."""
    calls = []

    def noted(*args):
        calls.append(decode_jpeg(*args))
        return calls[-1]

    monkeypatch.setattr(module, "decode_jpeg", noted)
    return calls


@needs_new_opencv
@pytest.mark.parametrize("name", PLAIN)
def test_plain_files_have_the_same_pixels(tmp_path, decoded, name):
    (tmp_path / "x.jpg").write_bytes(PLAIN[name])
    found, size = read(tmp_path / "x.jpg", quick=True)
    assert found is decoded[0]
    expected, expected_size = read(tmp_path / "x.jpg", quick=False)
    assert len(decoded) == 1 and size == expected_size
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", OTHERS)
def test_all_others_stay_with_pillow(tmp_path, decoded, name):
    (tmp_path / "x").write_bytes(OTHERS[name])
    np.testing.assert_array_equal(
        read(tmp_path / "x", quick=True)[0], read(tmp_path / "x", quick=False)[0]
    )
    assert not decoded


def test_channels_in_either_order(tmp_path):
    (tmp_path / "x.jpg").write_bytes(PLAIN["quality 95"])
    record = {"file_name": str(tmp_path / "x.jpg")}
    rgb, bgr = (read_image(record, order, quick=True) for order in ("RGB", "BGR"))
    np.testing.assert_array_equal(rgb, bgr[..., ::-1])
    assert rgb[25, 25].astype(int) == pytest.approx([250, 10, 60], abs=12)
    assert (record["height"], record["width"]) == (61, 83)


@needs_new_opencv
@pytest.mark.parametrize("name", ["quality 95", "progressive", "grey"])
def test_a_file_cut_anywhere_meets_the_same_verdict(tmp_path, name):
    data, path = PLAIN[name], tmp_path / "x.jpg"
    verdicts = []
    for end in [*range(2, len(data), max(len(data) // 60, 1)), *range(len(data) - 40, len(data))]:
        path.write_bytes(data[:end])
        verdicts.append(same_verdict(path))
    assert verdicts.count("refused") >= 60


@needs_new_opencv
@pytest.mark.parametrize("name", ["quality 75", "progressive", "restart markers", "grey"])
def test_a_damaged_file_is_never_refused_less(tmp_path, name):
    rng, path = np.random.default_rng(0), tmp_path / "x.jpg"
    for _ in range(100):
        data = bytearray(PLAIN[name])
        for place in rng.integers(2, len(data), rng.integers(1, 4)):
            data[place] = rng.integers(256)
        path.write_bytes(data)
        same_verdict(path)


def same_verdict(path) -> str:
    try:
        expected = read(path, quick=False)[0]
    except ImageError as error:
        with pytest.raises(ImageError) as found:
            read(path, quick=True)
        assert str(found.value) == str(error)
        return "refused"
    assert read(path, quick=True)[0].shape == expected.shape
    return "read"


@needs_new_opencv
@pytest.mark.parametrize("at_least", [(61, 83), (31, 42), (30, 41), (15, 20), (7, 10), (1, 1)])
@pytest.mark.parametrize("name", ["quality 95", "progressive", "grey"])
def test_a_fraction_is_pillows(tmp_path, decoded, name, at_least):
    (tmp_path / "x.jpg").write_bytes(PLAIN[name])
    found, size = read(tmp_path / "x.jpg", quick=True, at_least=at_least)
    expected, _ = read(tmp_path / "x.jpg", quick=False, at_least=at_least)
    assert len(decoded) == 1 and size == (61, 83)
    np.testing.assert_array_equal(found, expected)


def test_fractions_by_hand():
    assert fraction((480, 640), (480, 640)) == fraction((480, 640), (241, 1)) == 1
    assert fraction((480, 640), (240, 320)) == fraction((480, 640), (161, 161)) == 2
    assert fraction((480, 640), (120, 1)) == 4
    assert fraction((480, 640), (10, 10)) == 8
    assert fraction((10, 10), (20, 20)) == 1  # it is never made larger


def test_what_opencv_does_not_read_is_nothing():
    data = PLAIN["quality 95"]
    assert decode_jpeg(b"no image", (61, 83), None) is None
    assert decode_jpeg(data, (61, 84), None) is None  # not what the header told
    assert decode_jpeg(data, (61, 83), None) is not None


@needs_new_opencv
def test_old_versions_of_opencv_are_not_asked(tmp_path, decoded, monkeypatch):
    monkeypatch.setattr(module, "FINDS_TRUNCATION", False)
    (tmp_path / "x.jpg").write_bytes(PLAIN["quality 95"])
    assert read(tmp_path / "x.jpg", quick=True)[0].shape == (61, 83, 3)
    assert not decoded


def test_real_pictures_have_the_same_pixels(shared):
    for path in sorted((shared / "coco_tiny" / "val2017").iterdir()):
        np.testing.assert_array_equal(read(path, quick=True)[0], read(path, quick=False)[0])
