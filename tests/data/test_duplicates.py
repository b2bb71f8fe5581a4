"""Copies of an image are found, and stay on one side of a division."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest

from nanodet_d2.data.division import Rule, val_names
from nanodet_d2.data.duplicates import look, look_alikes, looks
from nanodet_d2.data.synthetic import make_shapes_dataset


def photograph(seed: int, height: int = 240, width: int = 320) -> np.ndarray:
    """Something with coarse and fine structure (H, W, 3)."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, 3), np.float32)
    for cells, strength in ((4, 60), (12, 30), (40, 20)):
        layer = rng.normal(0, strength, (cells, cells, 3)).astype(np.float32)
        image += cv2.resize(layer, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(image + 120, 0, 255).astype(np.uint8)


def copies(image: np.ndarray) -> dict[str, np.ndarray]:
    half = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    stretched = cv2.resize(image, (416, 416))
    poor = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 30])[1]
    return {
        "half.jpg": half,
        "stretched.png": stretched,
        "poor.png": cv2.imdecode(poor, cv2.IMREAD_COLOR),
        "brighter.jpg": cv2.convertScaleAbs(image, alpha=1.1, beta=8),
    }


def write(folder: Path, images: dict[str, np.ndarray]) -> list[str]:
    for name, image in images.items():
        cv2.imwrite(str(folder / name), image)
    return [str(folder / name) for name in images]


def content(names: list[str]) -> dict:
    return {
        "images": [{"id": i, "file_name": Path(x).name} for i, x in enumerate(names)],
        "annotations": [],
        "categories": [],
    }


def test_copies_are_found_and_other_pictures_are_not(tmp_path):
    images = {f"{i}.png": photograph(i) for i in range(40)}
    paths = write(tmp_path, {**images, **copies(images["3.png"])})
    assert look_alikes(looks(paths, what="")) == [[3, 40, 41, 42, 43]]
    for rule in (Rule(seed=seed) for seed in range(5)):
        val = val_names(content(paths), str(tmp_path), rule)
        assert len({name in val for name in ("3.png", *copies(images["3.png"]))}) == 1


def test_groups_are_told_across_blocks(monkeypatch):
    """And those that one image joins become one."""
    monkeypatch.setattr("nanodet_d2.data.duplicates._BLOCK", 3)
    angles = [0, 90, 20, 180, 110, 40, 240, 300]  # degrees; 25 and less look the same
    points = [np.array([np.cos(x), np.sin(x)], np.float16) for x in np.radians(angles)]
    assert look_alikes([None, *points, None]) == [[1, 3, 6], [2, 5]]
    assert look_alikes([None, None]) == [] and look_alikes([]) == []


def test_one_colour_tells_nothing(tmp_path):
    rng = np.random.default_rng(0)
    for i, grey in enumerate((0, 130, 255)):
        noise = rng.integers(0, 2, (64, 64, 3)).astype(np.uint8)
        (path,) = write(tmp_path, {f"{i}.png": np.abs(grey - noise.astype(int)).astype(np.uint8)})
        assert look(path) is None
    (tmp_path / "torn.jpg").write_bytes(b"no image")
    assert look(str(tmp_path / "torn.jpg")) is None and look(str(tmp_path / "absent.jpg")) is None


def test_things_on_the_same_background_are_different(tmp_path):
    """One small object each, as parts on a belt."""
    images = {}
    for i in range(30):
        image = np.full((96, 96, 3), 30, np.uint8)
        x, y = divmod(i, 6)
        image[8 + x * 14 : 18 + x * 14, 8 + y * 13 : 18 + y * 13] = 200
        images[f"{i}.png"] = image
    assert look_alikes(looks(write(tmp_path, images), what="")) == []


def test_drawn_shapes_are_different(tmp_path):
    found = make_shapes_dataset(tmp_path, num_train=60, num_val=2, image_size=96)
    paths = sorted(map(str, Path(found["train"]["images"]).glob("*")))
    assert len(paths) >= 60 and look_alikes(looks(paths, what="")) == []


def test_a_camera_that_stands_still_is_divided_all_the_same(tmp_path, caplog):
    scene, images = photograph(0), {}
    for i in range(20):
        image = scene.copy()
        cv2.circle(image, (20 + 14 * i, 100), 6, (0, 0, 255), -1)
        images[f"{i}.png"] = image
    paths = write(tmp_path, images)
    with caplog.at_level(logging.WARNING, logger="nanodet_d2"):
        val = val_names(content(paths), str(tmp_path), Rule())
    assert len(val) == 4
    assert "20 of 20 images look the same, as 0.png and 1.png; they are divided" in caplog.text


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("bccd", ["BloodImage_00037 BloodImage_00038"]),
        (
            "cards",
            [*(f"IMG_{i} IMG_{i + 1}" for i in (2464, 2466, 2468, 2471, 2473))]
            + ["cam_image1 cam_image54"],
        ),
    ],
)
def test_of_real_photographs_those_of_one_burst(shared, folder, expected):
    """Judged by eye: these pairs show the same scene, and the next similar ones do not."""
    place = shared / "real" / folder
    if not place.is_dir():
        pytest.skip(f"{place} is absent")
    paths = sorted(place.rglob("*.jpg"), key=lambda x: x.name)
    groups = look_alikes(looks([str(x) for x in paths], what=""))
    assert sorted(" ".join(paths[i].stem for i in group) for group in groups) == expected
