"""Warp, colour change and mapper."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from detectron2.structures import BoxMode

from nanodet_d2.data import DetectionMapper, RandomColor, RandomWarp
from nanodet_d2.data.color import adjust_color
from nanodet_d2.data.warp import WarpTransform, output_size, warp_matrix
from nanodet_d2.runtime.preprocess import MAX_SIDE


def gradient(height=30, width=40) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([4 * x, 4 * y, 2 * (x + y)], axis=-1).astype(np.uint8)


def test_evaluation_warp_is_a_stretch_by_pixel_index():
    image = gradient(20, 40)
    warp = RandomWarp((10, 20)).get_transform(image)
    np.testing.assert_allclose(warp.matrix, np.diag([0.5, 0.5, 1]), atol=1e-12)
    assert np.array_equal(warp.apply_image(image), image[::2, ::2])  # no half-pixel centre
    np.testing.assert_allclose(warp.apply_box([[4, 2, 40, 20]]), [[2, 1, 20, 10]])


@pytest.mark.parametrize("turned", [False, True])
def test_a_panorama_is_warped_although_opencv_takes_no_such_side(turned):
    """Every 100th column, as of any other image; boxes go by the whole image."""
    image = np.random.default_rng(0).integers(0, 256, (12, 40_000, 3), np.uint8)
    size, expected = (6, 400), image[::2, ::100]
    box, mapped = [[100, 2, 40_000, 12]], [[1, 1, 400, 6]]
    if turned:
        image, size, expected = image.transpose(1, 0, 2), size[::-1], expected.transpose(1, 0, 2)
        box, mapped = np.array(box)[:, [1, 0, 3, 2]], np.array(mapped)[:, [1, 0, 3, 2]]
    with pytest.raises(cv2.error):
        cv2.warpPerspective(image, np.eye(3), size[::-1])
    warp = RandomWarp(size).get_transform(image)
    assert np.array_equal(warp.apply_image(image), expected)
    assert np.array_equal(warp.apply_segmentation(image[..., 0]), expected[..., 0])
    np.testing.assert_allclose(warp.apply_box(box), mapped)


def test_sides_up_to_the_limit_are_warped_as_before():
    image = np.zeros((2, MAX_SIDE, 3), np.uint8)
    image[:, 1::2] = 200  # every second column would be black
    matrix = np.float64([[1, 0, -1], [0, 1, 0], [0, 0, 1]])
    assert (WarpTransform(matrix, 2, 1).apply_image(image) == 200).all()


def test_flip_maps_x_to_width_minus_x():
    matrix = warp_matrix((30, 40), (30, 40), flip=True)
    image = gradient()
    flipped = WarpTransform(matrix, 30, 40).apply_image(image)
    assert np.array_equal(flipped[:, 1:], image[:, :0:-1])
    assert (flipped[:, 0] == 0).all()  # the source's column 40 is not there
    boxes = WarpTransform(matrix, 30, 40).apply_box([[5, 0, 15, 10]])
    np.testing.assert_allclose(boxes, [[25, 0, 35, 10]])


def test_rotation_is_counter_clockwise_about_the_centre():
    matrix = warp_matrix((40, 40), (40, 40), rotation=90)
    right_of_centre = matrix @ [30, 20, 1]
    np.testing.assert_allclose(right_of_centre, [20, 10, 1], atol=1e-9)  # now above it


def test_parts_compose_in_order():
    matrix = warp_matrix((30, 40), (60, 80), scale=2, stretch=(1, 0.5), translate=(0.25, 0.5))
    # centre -> a quarter of the width; x scaled by 2 (scale) * 2 (resize), y by 2 * 0.5 * 2
    np.testing.assert_allclose(matrix @ [20, 15, 1], [20, 30, 1])
    np.testing.assert_allclose(matrix @ [21, 16, 1], [24, 32, 1])


def test_perspective_and_inverse():
    matrix = warp_matrix((30, 40), (30, 40), perspective=(1e-3, 2e-3), shear=(5, -3))
    points = np.random.default_rng(0).uniform(0, 30, (20, 2))
    there = WarpTransform(matrix, 30, 40).apply_coords(points)
    back = WarpTransform(np.linalg.inv(matrix), 30, 40).apply_coords(there)
    np.testing.assert_allclose(back, points, atol=1e-9)
    assert np.abs(there - points).max() > 0.1


@pytest.mark.parametrize("height, width, expected", [(240, 400, (192, 320)), (400, 100, (320, 80))])
def test_kept_ratio_fits_into_the_size(height, width, expected):
    assert output_size(height, width, (320, 320), keep_ratio=True) == expected
    image = np.full((height, width, 3), 200, np.uint8)
    warp = RandomWarp((320, 320), keep_ratio=True).get_transform(image)
    assert warp.apply_image(image).shape[:2] == expected


def test_random_warp_follows_the_seed():
    image = gradient()
    options = dict(scale=(0.6, 1.4), flip=0.5, translate=0.2, rotation=10, shear=5)

    def draw(seed):
        np.random.seed(seed)
        return RandomWarp((32, 32), **options).get_transform(image).matrix

    assert np.array_equal(draw(1), draw(1)) and not np.array_equal(draw(1), draw(2))


def test_segmentation_takes_the_nearest_label():
    labels = np.zeros((20, 20), np.uint8)
    labels[10:] = 7
    out = WarpTransform(warp_matrix((20, 20), (13, 13)), 13, 13).apply_segmentation(labels)
    assert set(np.unique(out)) == {0, 7}


def test_colour_steps_by_hand():
    pixel = np.array([[[100, 50, 200]]], np.uint8)
    assert adjust_color(pixel) is pixel
    assert adjust_color(pixel, brightness=0.2).tolist() == [[[151, 101, 251]]]
    assert adjust_color(pixel, contrast=1.4).tolist() == [[[140, 70, 255]]]
    # Scaling S keeps the largest channel and moves the others away from it in proportion.
    assert adjust_color(pixel, saturation=0.5).tolist() == [[[150, 125, 200]]]
    assert adjust_color(pixel, brightness=-1.0).tolist() == [[[0, 0, 0]]]
    # Nothing is clipped in between: 200 is 1.57 after the contrast, and back at 1 after the rest.
    assert adjust_color(pixel, contrast=2.0, saturation=0.0).tolist() == [[[255, 255, 255]]]
    assert adjust_color(pixel, brightness=0.5, contrast=0.5).tolist() == [[[114, 89, 164]]]


def reference_color(image, brightness, contrast, saturation) -> np.ndarray:
    """Float arithmetic of the specification, section 4.4, as grey levels."""
    pixels = (image.astype(np.float64) / 255 + brightness) * contrast
    value = pixels.max(axis=2, keepdims=True)
    return np.clip((value + saturation * (pixels - value)) * 255, 0, 255)


@pytest.mark.parametrize("brightness", [0.0, -0.2, 0.13])
@pytest.mark.parametrize("contrast", [1.0, 0.6, 1.37])
@pytest.mark.parametrize("saturation", [1.0, 0.5, 1.2])
def test_colors_are_the_references_within_a_grey_level(brightness, contrast, saturation):
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    mine = adjust_color(image, brightness, contrast, saturation)
    expected = reference_color(image, brightness, contrast, saturation)
    assert np.abs(mine - expected).max() <= 0.5 + 1e-4
    # OpenCV's HSV, which the reference goes through, is the same where the values are positive.
    pixels = ((image.astype(np.float32) / 255 + brightness) * contrast).astype(np.float32)
    hsv = cv2.cvtColor(pixels, cv2.COLOR_BGR2HSV)
    hsv[..., 1] *= saturation
    through_hsv = np.clip(cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR) * 255, 0, 255)
    positive = pixels.min(axis=2) > 0
    assert np.abs(mine - through_hsv)[positive].max() <= 1


def test_random_color_follows_the_seed():
    image = gradient()

    def draw(seed):
        np.random.seed(seed)
        return RandomColor().get_transform(image).apply_image(image)

    results = [draw(seed) for seed in range(6)]
    assert np.array_equal(draw(3), results[3])
    assert len({x.tobytes() for x in results}) > 3 and results[0].dtype == np.uint8


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(size=(0, 32)), r"size \[0, 32\]"),
        (dict(size=(32, 32), scale=(1.4, 0.6)), r"scale \[1.4, 0.6\]; allowed: 0 < low <= high"),
        (dict(size=(32, 32), stretch=((1, 1), (0, 1))), r"stretch\[1\]"),
        (dict(size=(32, 32), flip=1.5), "flip 1.5; allowed: 0 to 1"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        RandomWarp(**options)


@pytest.fixture
def record(tmp_path) -> dict:
    path = tmp_path / "image.png"
    cv2.imwrite(str(path), gradient())
    boxes = [[5, 5, 20, 20], [0, 0, 10, 10], [2, 2, 30, 28]]
    return {
        "file_name": str(path),
        "image_id": 1,
        "height": 30,
        "width": 40,
        "annotations": [
            {"bbox": b, "bbox_mode": BoxMode.XYXY_ABS, "category_id": i, "iscrowd": int(i == 2)}
            for i, b in enumerate(boxes)
        ],
    }


class ShiftLeft(RandomWarp):
    """Moves the image by 15 pixels, so that the second box leaves it."""

    def get_transform(self, image):
        return WarpTransform(np.array([[1.0, 0, -15], [0, 1, 0], [0, 0, 1]]), 30, 40)


def test_mapper_drops_boxes_that_lost_their_area(record):
    mapper = DetectionMapper(is_train=True, augmentations=[ShiftLeft((30, 40))])
    sample = mapper(record)
    assert sample["image"].dtype == torch.uint8 and sample["image"].shape == (3, 30, 40)
    assert sample["instances"].gt_boxes.tensor.tolist() == [[0, 5, 5, 20]]
    assert sample["instances"].gt_classes.tolist() == [0]
    assert sample["ignore_boxes"].tensor.tolist() == [[0, 2, 15, 28]]
    assert "annotations" in record

    warps = [ShiftLeft((30, 40))]
    mapper = DetectionMapper(is_train=True, augmentations=warps, keep_empty_boxes=True)
    assert mapper(record)["instances"].gt_classes.tolist() == [0, 1]


def test_mapper_of_an_image_without_boxes(record):
    mapper = DetectionMapper(is_train=True, augmentations=[RandomWarp((32, 32))])
    sample = mapper({**record, "annotations": []})
    assert len(sample["instances"]) == 0 and sample["image"].shape == (3, 32, 32)


def test_mapper_in_inference_keeps_the_image_size(record):
    sample = DetectionMapper(is_train=False, augmentations=[RandomWarp((32, 32))])(record)
    assert (sample["height"], sample["width"]) == (30, 40)
    assert "instances" not in sample and "annotations" not in sample
    rgb = DetectionMapper(is_train=False, augmentations=[], image_format="RGB")(record)
    bgr = DetectionMapper(is_train=False, augmentations=[])(record)
    assert torch.equal(rgb["image"], bgr["image"].flip(0))
    assert np.array_equal(bgr["image"].permute(1, 2, 0).numpy(), gradient())


def test_bad_images_are_named(record, tmp_path):
    mapper = DetectionMapper(is_train=False, augmentations=[])
    with pytest.raises(ValueError, match="nowhere.png cannot be used"):
        mapper({**record, "file_name": str(tmp_path / "nowhere.png")})
    with pytest.raises(ValueError, match="image.png cannot be used: .*[Mm]ismatch"):
        mapper({**record, "width": 99})
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    data = cv2.imencode(".jpg", noise)[1].tobytes()
    (tmp_path / "torn.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="torn.jpg cannot be used: .*truncated"):
        mapper({"file_name": str(tmp_path / "torn.jpg")})
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(ValueError, match="text.jpg cannot be used"):
        mapper({"file_name": str(tmp_path / "text.jpg")})
