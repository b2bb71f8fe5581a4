"""Training samples against the same draws in plain arithmetic: labels equal, pixels nearly."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from detectron2.structures import BoxMode
from PIL import Image

from nanodet_d2.data import DetectionMapper, RandomColor, RandomWarp
from nanodet_d2.data.mapper import channels_first
from nanodet_d2.data.warp import WarpTransform, quick_warp, warp_matrix
from nanodet_d2.runtime.images import read_file
from nanodet_d2.runtime.preprocess import warp
from tests.data.broken_files import encoded

TRAINING = dict(scale=(0.6, 1.4), stretch=((0.8, 1.2), (0.8, 1.2)), flip=0.5, translate=0.2)
TURNING = {**TRAINING, "rotation": 20, "shear": 10}
SIZE = (96, 128)


def plain_sample(record: dict, seed: int, options: dict, size) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (3, H, W) and boxes (K, 4) of a sample by the warp and the colours of OpenCV alone."""
    image = read_file(record["file_name"])
    np.random.seed(seed)
    moved = RandomWarp(size, **options).get_transform(image)
    pixels = cv2.warpPerspective(image, moved.matrix, size[::-1])
    boxes = np.array([x["bbox"] for x in record["annotations"]], np.float64).reshape(-1, 4)
    corners = boxes[:, [0, 1, 2, 1, 0, 3, 2, 3]].reshape(-1, 2)
    x, y, w = moved.matrix @ np.c_[corners, np.ones(len(corners))].T
    x, y = (x / w).reshape(-1, 4), (y / w).reshape(-1, 4)
    boxes = np.stack([x.min(1), y.min(1), x.max(1), y.max(1)], axis=1)
    drawn = RandomColor().get_transform(pixels)
    levels = (pixels.astype(np.float64) + 255 * drawn.brightness) * drawn.contrast
    value = levels.max(axis=2, keepdims=True)
    levels = np.clip(value + drawn.saturation * (levels - value), 0, 255)
    return levels.transpose(2, 0, 1), np.clip(boxes, 0, np.tile(size[::-1], 2))


def difference(record: dict, seed: int, options: dict, size=SIZE) -> float:
    """Mean of a sample's pixels, in grey levels, from the plain ones; the labels are the same."""
    mapper = DetectionMapper(
        is_train=True, augmentations=[RandomWarp(size, **options), RandomColor()]
    )
    np.random.seed(seed)
    sample = mapper(dict(record))
    pixels, boxes = plain_sample(record, seed, options, size)
    seen = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    found = sample["instances"]
    np.testing.assert_allclose(found.gt_boxes.tensor.numpy(), boxes[seen], rtol=1e-6, atol=1e-4)
    classes = np.array([x["category_id"] for x in record["annotations"]], int)
    assert found.gt_classes.tolist() == classes[seen].tolist()
    image = sample["image"]
    assert image.is_contiguous() and image.shape == (3, *size) and image.dtype == torch.uint8
    return float(np.abs(image.numpy() - pixels).mean())


@pytest.fixture(params=["JPEG", "PNG"])
def record(request, tmp_path) -> dict:
    """An image of 150 x 100 px, of noise that is as rough as pixels can be without being alone."""
    noise = np.random.default_rng(0).integers(0, 256, (50, 75, 3), dtype=np.uint8)
    pixels = cv2.resize(noise, (150, 100), interpolation=cv2.INTER_LINEAR)
    (tmp_path / "x").write_bytes(encoded(Image.fromarray(pixels), request.param))
    boxes = [[10, 10, 60, 40], [0, 0, 150, 100], [140, 90, 149, 99], [70.5, 20.25, 80, 30]]
    annotations = [
        {"bbox": x, "bbox_mode": BoxMode.XYXY_ABS, "category_id": i} for i, x in enumerate(boxes)
    ]
    return {"file_name": str(tmp_path / "x"), "annotations": annotations}


@pytest.mark.parametrize("options", [TRAINING, TURNING, {**TURNING, "perspective": 5e-4}, {}])
def test_samples_of_many_draws(record, options):
    differences = [difference(record, seed, options) for seed in range(60)]
    # The half of a level is what rounding to whole levels takes.
    assert max(differences) < 1 and np.mean(differences) < 0.6


def test_samples_of_real_pictures(shared):
    paths = sorted((shared / "coco_tiny" / "train2017").iterdir())[:40]
    differences = []
    for seed, path in enumerate(paths):
        record = {"file_name": str(path), "annotations": []}
        differences += [difference(record, 100 + seed, TRAINING, size=(416, 416))]
    assert max(differences) < 1 and np.mean(differences) < 0.5


def test_evaluation_keeps_its_pixels(record):
    """Pillow's, by the perspective warp: the official weights' AP is that of these."""
    augmentation = RandomWarp(SIZE)
    assert not augmentation.is_random and RandomWarp(SIZE, keep_ratio=True).is_random is False
    sample = DetectionMapper(is_train=False, augmentations=[augmentation])(dict(record))
    image = read_file(record["file_name"])
    matrix = np.diag([SIZE[1] / 150, SIZE[0] / 100, 1.0])
    expected = cv2.warpPerspective(image, matrix, SIZE[::-1])
    np.testing.assert_array_equal(sample["image"].numpy(), expected.transpose(2, 0, 1))


@pytest.mark.parametrize(
    "options", [{"scale": (1, 2)}, {"stretch": ((1, 1), (1, 2))}, {"flip": 0.5}, {"translate": 0.1}]
)
def test_what_is_drawn_is_quick(options):
    augmentation = RandomWarp(SIZE, **options)
    assert augmentation.is_random
    assert augmentation.get_transform(np.zeros((10, 10, 3), np.uint8)).quick


def smooth(height: int, width: int) -> np.ndarray:
    """No pixel is black, and a pixel's neighbours are within 4 levels of it."""
    y, x = np.mgrid[:height, :width]
    return np.stack([50 + x, 250 - 2 * y, 100 + x - y], axis=2).astype(np.uint8)


def matrices(count: int):
    rng = np.random.default_rng(0)
    for _ in range(count):
        yield warp_matrix(
            (60, 80),
            (48, 64),
            scale=rng.uniform(0.1, 3),
            stretch=rng.uniform(0.5, 2, 2),
            rotation=rng.uniform(-180, 180),
            shear=rng.uniform(-30, 30, 2),
            flip=rng.random() < 0.5,
            translate=rng.uniform(-1, 2, 2),
        )


def test_the_quick_warp_shows_all_that_the_plain_one_does():
    shown = 0
    for matrix in matrices(300):
        image = smooth(60, 80)
        found, expected = quick_warp(image, matrix, 48, 64), warp(image, matrix, 48, 64)
        assert found.shape == expected.shape and found.flags.c_contiguous
        apart = np.abs(found.astype(int) - expected)
        assert (
            apart.max() <= 250 / 32 * 2 + 1 and apart.mean() < 0.1
        )  # a border's pixel: 1/32 each way
        shown += expected.any()
    assert 100 < shown < 300  # some lie outside


def test_whole_pixels_are_moved_as_they_are():
    image = smooth(60, 80)
    matrix = np.array([[1.0, 0, 7], [0, 1, -5], [0, 0, 1]])
    found = quick_warp(image, matrix, 60, 80)
    np.testing.assert_array_equal(found[:55, 7:], image[5:, :73])
    assert not found[55:].any() and not found[:, :7].any()
    np.testing.assert_array_equal(quick_warp(image[..., 0], matrix, 60, 80), found[..., 0])
    outside = np.array([[1.0, 0, 1000], [0, 1, 0], [0, 0, 1]])
    assert not quick_warp(image, outside, 60, 80).any()


def test_perspective_and_panoramas_are_warped_as_before():
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    matrix = warp_matrix((60, 80), (48, 64), perspective=(1e-3, 0))
    np.testing.assert_array_equal(quick_warp(image, matrix, 48, 64), warp(image, matrix, 48, 64))
    wide = np.random.default_rng(0).integers(0, 256, (3, 40_000, 3), np.uint8)
    matrix = warp_matrix((3, 40_000), (3, 100), translate=(0.6, 0.5))
    transform = WarpTransform(matrix, 3, 100, quick=True)
    np.testing.assert_array_equal(transform.apply_image(wide), warp(wide, matrix, 3, 100))


def test_the_matrix_has_the_bits_of_numpys_product():
    """On which the evaluation's pixels depend, where a position lies between two roundings."""
    for height, width in ((480, 640), (427, 640), (375, 500), (333, 1)):
        found = warp_matrix((height, width), (320, 320))
        there, back = np.eye(3), np.eye(3)
        there[:2, 2], back[:2, 2] = (0.5 * width, 0.5 * height), (-width / 2, -height / 2)
        factors = [np.diag([320 / width, 320 / height, 1.0]), there, *[np.eye(3)] * 6, back]
        assert np.array_equal(found, np.linalg.multi_dot(factors))


def test_channels_first():
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    for other in (image, image.astype(np.float32), image[..., :1], image[:, ::-1]):
        found = channels_first(other)
        np.testing.assert_array_equal(found, other.transpose(2, 0, 1))
        assert found.flags.c_contiguous and found.flags.writeable
    planes = np.zeros((3, 2, 4), np.uint8)
    assert np.shares_memory(channels_first(planes.transpose(1, 2, 0)), planes)
    kept = np.zeros((1, 1, 3), np.uint8)
    kept.flags.writeable = False  # a cache's image: nobody may write into it through a sample
    assert not np.shares_memory(channels_first(kept), kept)
