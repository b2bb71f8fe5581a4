"""From an image to the network's input: the evaluation's bits, faster."""

from __future__ import annotations

import numpy as np
import pytest
from detectron2.data.transforms import AugInput

from nanodet_d2.data import RandomWarp
from nanodet_d2.runtime.detections import in_image
from nanodet_d2.runtime.metadata import InputDescription
from nanodet_d2.runtime.preprocess import MAX_SIDE, fit_of, normalize, prepare, stretch

SIZES = [  # (height, width) of image and of input
    ((480, 640), (416, 416)),
    ((427, 640), (320, 320)),
    ((375, 500), (416, 416)),  # up and down
    ((96, 64), (96, 64)),  # the same
    ((1080, 1920), (320, 192)),
    ((33, 47), (416, 416)),
    ((101, 77), (65, 129)),  # odd
    ((1, 1), (4, 4)),
    ((1, 640), (32, 64)),  # 1 px high
    ((480, 1), (64, 32)),  # 1 px wide
    ((7, 5), (1, 1)),
    ((1, 146), (2, 384)),  # fewer rows than OpenCV warps in one go: its roundings are others
    ((4, 1118), (5, 384)),
    ((6, 2279), (13, 1024)),
    ((40, MAX_SIDE - 1), (32, 64)),
    ((40, MAX_SIDE), (32, 64)),
    ((40, MAX_SIDE + 1), (32, 64)),
    ((70_000, 20), (96, 32)),
]


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def as_the_evaluation(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return RandomWarp(size).get_transform(image).apply_image(image)


@pytest.mark.parametrize("image_size, size", SIZES)
def test_stretched_to_the_bits_of_the_evaluation(image_size, size):
    image = noise(*image_size)
    found = stretch(image, *size)
    assert found.shape == (*size, 3) and found.dtype == np.uint8
    np.testing.assert_array_equal(found, as_the_evaluation(image, size))
    np.testing.assert_array_equal(stretch(image, *size), found)  # where positions are remembered


def test_any_sizes():
    rng = np.random.default_rng(0)
    for i in range(200):
        height, width = (int(x) for x in rng.integers(1, 500, 2))
        drawn = rng.integers(1, 300, 2) if i % 2 else 32 * rng.integers(1, 9, 2)
        size = (int(drawn[0]), int(drawn[1]))
        image = noise(height, width, i)
        np.testing.assert_array_equal(stretch(image, *size), as_the_evaluation(image, size))


def test_an_image_that_is_a_view():
    image = noise(120, 160)[::2, 10:130]
    np.testing.assert_array_equal(
        stretch(image, 64, 96), as_the_evaluation(np.ascontiguousarray(image), (64, 96))
    )


def test_a_panorama_beyond_opencvs_limit():
    wide = np.zeros((40, 33_000, 3), np.uint8)
    wide[:, 16_500:] = 200
    stretched = stretch(wide, 96, 64)[:90]  # the last rows lie beyond the image's, which is black
    assert (stretched[:, 32:] == 200).all() and (stretched[:, :32] == 0).all()


def test_input_is_normalised_in_the_order_of_the_network():
    image = np.uint8([[[10, 20, 30]]])  # blue, green, red
    facts = dict(name="data", height=1, width=1, dynamic=False, std=(1.0, 2.0, 4.0))
    bgr = InputDescription(channel_order="BGR", mean=(10.0, 10.0, 10.0), **facts)
    rgb = InputDescription(channel_order="RGB", mean=(10.0, 10.0, 10.0), **facts)
    assert normalize(image, bgr).ravel().tolist() == [0, 5, 5]
    assert normalize(image, rgb).ravel().tolist() == [20, 5, 0]
    assert normalize(image, bgr).dtype == np.float32


@pytest.mark.parametrize("order", ["BGR", "RGB"])
def test_normalised_to_the_bits_of_the_formula(order):
    mean, std = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)
    x = InputDescription("data", 64, 96, False, order, mean, std)
    image = noise(64, 96)
    image[:16, :16] = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)  # each value
    planes = image.transpose(2, 0, 1)[:: 1 if order == "BGR" else -1].astype(np.float32)
    expected = (planes - np.float32(mean).reshape(3, 1, 1)) / np.float32(std).reshape(3, 1, 1)
    found = normalize(image, x)
    assert found.dtype == np.float32 and found.flags.c_contiguous
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(normalize(image[:, ::-1], x), expected[:, :, ::-1])  # a view


@pytest.mark.parametrize(
    "shape", [(427, 640), (77, 50), (320, 320), (33, 47), (500, 375), (9, 900)]
)
def test_an_image_is_fitted_as_the_evaluation_fits_it(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    inputs = AugInput(image)
    transform = RandomWarp((320, 416), keep_ratio=True)(inputs)
    fit = fit_of(*shape, 320, 416)
    assert inputs.image.shape[:2] == (fit.height, fit.width)
    np.testing.assert_allclose(fit.matrix, transform.matrix, atol=1e-9)
    mean, std = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)
    described = InputDescription("data", 320, 416, False, "BGR", mean, std, resize="fit")
    found = prepare(image, described)
    assert found.shape == (3, 320, 416) and found.dtype == np.float32
    expected = normalize(inputs.image, described)
    np.testing.assert_array_equal(found[:, : fit.height, : fit.width], expected)
    assert not found[:, fit.height :].any() and not found[:, :, fit.width :].any()


def test_an_image_is_fitted_by_hand():
    """700 x 501 in 350 x 350: 250.5 rows are 250, with 250 / 501 there are 349.3 columns of 350."""
    fit = fit_of(501, 700, 350, 350)
    assert (fit.height, fit.width, fit.factor) == (250, 350, 250 / 501)
    assert fit.shift == pytest.approx((175 - 350 * 250 / 501, 0), abs=1e-12)
    x = 175 - 350 * 250 / 501
    boxes = np.float32([[x, 0, x + 250, 125]])
    found = in_image(
        *(boxes, np.ones(1), np.zeros(1)),
        class_names=("a",),
        image_size=(501, 700),
        input_size=(350, 350),
        resize="fit",
    )
    np.testing.assert_allclose(found.xyxy, [[0, 0, 501, 250.5]], atol=1e-4)
