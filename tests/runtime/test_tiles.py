"""Slices of large pictures: where they lie, and that each object is found once, and whole."""

from __future__ import annotations

import dataclasses
import json

import cv2
import numpy as np
import pytest

from nanodet_d2 import cli
from nanodet_d2.data.shapes import draw_picture
from nanodet_d2.predictor import Detector as AnyDetector
from nanodet_d2.runtime import Detections, Detector, Tiles
from nanodet_d2.runtime.tiles import cut, detect_in_slices, merge, slices
from tests.small_models import FORMAT_CASES

SIZE = (100, 160)  # height, width of the pictures below
PLACES = slices(*SIZE, Tiles(size=100, overlap=0.4, whole=False))  # two of them, side by side
NAMES = ("lamp", "dog")


def found(*rows) -> Detections:
    """Rows of x0, y0, x1, y1, score and class."""
    table = np.array(rows, np.float64).reshape(-1, 6)
    return Detections(
        xyxy=table[:, :4].astype(np.float32),
        confidence=table[:, 4].astype(np.float32),
        class_id=table[:, 5].astype(np.int64),
        class_names=NAMES,
        image_size=(100, 100),
    )


def merged(left, right) -> list[list[float]]:
    """What is left of the rows of two slices, each in its own pixels."""
    result = merge([found(*left), found(*right)], PLACES, SIZE, 0.6)
    assert result.image_size == SIZE and result.class_names == NAMES
    return [
        [*box, round(float(score), 3), label]
        for box, score, label in zip(
            result.xyxy.tolist(), result.confidence, result.class_id.tolist()
        )
    ]


def test_slices_by_hand():
    tiles = Tiles(size=64, overlap=0.25)
    assert slices(64, 160, tiles).tolist() == [
        [0, 0, 64, 64], [48, 0, 112, 64], [96, 0, 160, 64], [0, 0, 160, 64]
    ]  # fmt: skip
    assert PLACES.tolist() == [[0, 0, 100, 100], [60, 0, 160, 100]]


def test_levels_by_hand():
    tiles = Tiles(size=64, overlap=0.0, whole=True, levels=8)
    places = slices(128, 256, tiles).tolist()
    assert len(places) == 2 * 4 + 1 * 2 + 1 and places[0] == [0, 0, 64, 64]
    assert places[8:] == [[0, 0, 128, 128], [128, 0, 256, 128], [0, 0, 256, 128]]
    assert slices(40, 40, tiles).tolist() == [[0, 0, 40, 40]]


def test_a_small_picture_is_one_slice():
    for height, width in ((64, 64), (10, 20), (64, 1)):
        assert slices(height, width, Tiles(size=64)).tolist() == [[0, 0, width, height]]
    assert slices(65, 20, Tiles(size=64)).tolist() == [
        [0, 0, 20, 64],
        [0, 1, 20, 65],
        [0, 0, 20, 65],
    ]


@pytest.mark.parametrize("seed", range(40))
def test_slices_cover_all_with_at_least_the_overlap(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 3000, 2).tolist()
    tiles = Tiles(size=int(rng.integers(16, 900)), overlap=float(rng.uniform(0, 0.89)), whole=False)
    places = slices(height, width, tiles)
    for axis, length in ((0, width), (1, height)):
        low, high = np.unique(places[:, axis]), np.unique(places[:, axis + 2])
        assert low[0] == 0 and high[-1] == length
        assert (high - low == min(tiles.size, length)).all()
        if len(low) > 1:
            assert (high[:-1] - low[1:]).min() >= int(tiles.size * tiles.overlap)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"size": 15}, "tiles of size 15; allowed: whole numbers from 16 on"),
        ({"size": 64.0}, "allowed: whole numbers"),
        ({"overlap": 0.9}, "overlap 0.9 of tiles; allowed: 0 to below 0.9"),
        ({"overlap": -0.1}, "allowed: 0 to below 0.9"),
        ({"levels": 0}, "levels 0 of tiles; allowed: 1 to 8"),
    ],
)
def test_what_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Tiles(**arguments)


def test_which_boxes_are_cut():
    boxes = np.float32([[10, 10, 50, 50], [10, 10, 99, 50], [0, 0, 30, 30], [70, 0, 90, 100]])
    assert cut(boxes, PLACES[[0, 0, 0, 0]], SIZE).tolist() == [False, True, False, False]
    assert cut(boxes + [60, 0, 60, 0], PLACES[[1, 1, 1, 1]], SIZE).tolist() == [
        False, False, True, False
    ]  # fmt: skip


def test_an_object_in_both_slices_is_found_once():
    assert merged([(70, 20, 90, 40, 0.8, 0)], [(10, 20, 31, 40, 0.9, 0)]) == [
        [70, 20, 91, 40, 0.9, 0]
    ]
    # Of another class, or elsewhere, they are two.
    assert len(merged([(70, 20, 90, 40, 0.8, 0)], [(10, 20, 31, 40, 0.9, 1)])) == 2
    assert len(merged([(70, 20, 90, 40, 0.8, 0)], [(10, 50, 31, 70, 0.9, 0)])) == 2


@pytest.mark.parametrize("whole, part", [(0.9, 0.6), (0.6, 0.9)])
def test_a_part_gives_way_to_the_whole(whole, part):
    """Whichever score is better; the object keeps that one."""
    left, right = [(80, 20, 100, 60, part, 0)], [(20, 20, 70, 60, whole, 0)]
    assert merged(left, right) == [[80, 20, 130, 60, 0.9, 0]]


def test_a_doubtful_box_does_not_replace_a_sure_part():
    left, right = [(80, 20, 100, 60, 0.9, 0)], [(15, 10, 70, 70, 0.2, 0)]
    assert merged(left, right) == [[80, 20, 100, 60, 0.9, 0], [75, 10, 130, 70, 0.2, 0]]


def test_two_parts_are_joined():
    left, right = [(20, 20, 100, 60, 0.7, 1)], [(0, 21, 80, 60, 0.8, 1)]
    assert merged(left, right) == [[20, 20, 140, 60, 0.8, 1]]
    # Those that disagree about what both have seen are two objects.
    assert len(merged([(20, 20, 100, 60, 0.7, 1)], [(0, 55, 80, 90, 0.8, 1)])) == 2


def test_a_neighbour_that_reaches_into_the_slice_stays():
    """A small cut box hides no part of another object's, and is not hidden."""
    left = [(50, 20, 100, 40, 0.9, 0), (70, 60, 95, 80, 0.8, 0)]
    right = [(38, 20, 80, 40, 0.7, 0)]
    assert len(merged(left, right)) == 3


def test_nothing_is_found_in_nothing():
    assert merged([], []) == []
    assert merged([], [(20, 20, 70, 60, 0.5, 0)]) == [[80, 20, 130, 60, 0.5, 0]]


def blobs(images: list[np.ndarray]) -> list[Detections]:
    """Each bright region, as one box; larger ones are surer."""
    result = []
    for image in images:
        _, _, stats, _ = cv2.connectedComponentsWithStats((image[..., 0] > 128).astype(np.uint8))
        rows = [(x, y, x + w, y + h, 0.5 + area / 1e6, 0) for x, y, w, h, area in stats[1:]]
        result.append(found(*sorted(rows, key=lambda row: -row[4])))
    return result


@pytest.mark.parametrize("whole, levels", [(False, 1), (True, 1), (False, 2), (True, 3)])
@pytest.mark.parametrize("seed", range(8))
def test_rectangles_of_any_size_are_found_whole(seed, whole, levels):
    """Those that no slice shows whole, too: a detector without mistakes gives the truth."""
    rng = np.random.default_rng(seed)
    image, truth = np.zeros((410, 530, 3), np.uint8), []
    for _ in range(60):
        x0, y0 = rng.integers(0, [510, 390]).tolist()
        x1, y1 = np.minimum([x0, y0] + rng.integers(8, 260, 2), [530, 410]).tolist()
        if not image[max(0, y0 - 2) : y1 + 2, max(0, x0 - 2) : x1 + 2].any():
            image[y0:y1, x0:x1] = 255
            truth.append([x0, y0, x1, y1])
    tiles = Tiles(size=128, overlap=0.3, whole=whole, levels=levels)
    result = detect_in_slices(blobs, image, tiles, batch=3, nms_threshold=0.6)
    assert sorted(result.xyxy.tolist()) == sorted(truth) and len(truth) > 5
    assert (np.diff(result.confidence) <= 0).all()


@pytest.mark.parametrize("format", FORMAT_CASES)
def test_the_same_boxes_on_every_backend(small_models, format):
    """As PyTorch finds them."""
    picture = draw_picture(0, "val", 3, 230)[0][:200]
    tiles = Tiles(size=120, overlap=0.25)
    path = small_models.file(format)
    mine = Detector(path, tiles=tiles)(picture)
    expected = AnyDetector(small_models.loaded(), tiles=tiles)(picture)
    assert mine.image_size == (200, 230) and len(expected) > 20
    same = [
        (np.abs(mine.xyxy - box).max(axis=1) < 0.5) & (mine.class_id == label)
        for box, label in zip(expected.xyxy, expected.class_id)
    ]
    # A score or an IoU may lie at its limit.
    assert np.any(same, axis=1).mean() > 0.97 and abs(len(mine) - len(expected)) <= 3


def test_batches_and_single_slices_give_the_same(small_models):
    picture = draw_picture(0, "val", 3, 230)[0]
    tiles = Tiles(size=100)
    fixed = Detector(small_models.file("torchscript"), tiles=tiles)
    free = Detector(small_models.file("torchscript", dynamic=True), tiles=tiles)
    one, other = fixed(picture), free(picture)
    assert len(one) == len(other) > 0
    np.testing.assert_allclose(one.xyxy, other.xyxy, atol=1e-2)
    np.testing.assert_array_equal(one.class_id, other.class_id)


@pytest.mark.parametrize("nms", ["plain", "voting"])
@pytest.mark.parametrize("resize", ["stretch", "fit"])
def test_each_slice_is_a_picture_for_models_that_fit_or_vote(small_models, tmp_path, resize, nms):
    path, described = small_models.file("torchscript"), tmp_path / "metadata.json"
    plain = Detector(path).metadata
    resized = dataclasses.replace(plain.input, resize=resize)
    described.write_text(dataclasses.replace(plain, input=resized, nms=nms).to_json())
    picture = draw_picture(0, "val", 3, 160)[0][:100]
    tiles = Tiles(size=80, overlap=0.0, whole=False)
    mine = Detector(path, metadata=described, tiles=tiles)(picture)
    places = slices(100, 160, tiles)
    single = Detector(path, metadata=described)
    boxes = [
        single(picture[y0:y1, x0:x1]).xyxy + np.float32([x0, y0, x0, y0])
        for x0, y0, x1, y1 in places.tolist()
    ]
    assert len(places) == 4 and len(mine) > 10
    # But for those that are joined, where slices overlap.
    same = [np.abs(np.concatenate(boxes) - box).max(axis=1).min() < 1e-3 for box in mine.xyxy]
    assert np.mean(same) > 0.8
    other = Detector(path, tiles=tiles)(picture)
    is_same = len(other) == len(mine) and np.abs(other.xyxy - mine.xyxy).max() < 1e-3
    assert is_same == (resize == "stretch" and nms == "plain")


def test_a_list_of_pictures_and_none_cut(small_models):
    picture = draw_picture(0, "val", 3, 90)[0]
    path = small_models.file("torchscript")
    cut_up, plain = Detector(path, tiles=Tiles(size=100)), Detector(path)
    expected = plain(picture)
    for result in cut_up([picture, picture]):
        np.testing.assert_array_equal(result.xyxy, expected.xyxy)
        np.testing.assert_array_equal(result.confidence, expected.confidence)


def test_the_command_cuts_pictures(small_models, tmp_path):
    picture = draw_picture(0, "val", 3, 200)[0]
    cv2.imwrite(str(tmp_path / "large.png"), picture)
    path, output = small_models.file("torchscript"), tmp_path / "out"
    arguments = ["predict", str(path), str(tmp_path / "large.png"), "--output", str(output)]
    more = ["--threshold", "0.05", "--tiles", "90", "--overlap", "0.3", "--levels", "2"]
    assert cli.main([*arguments, *more, "--tiles-only"]) == 0
    content = json.loads((output / "detections.json").read_text())
    tiles = Tiles(size=90, overlap=0.3, whole=False, levels=2)
    expected = Detector(path, tiles=tiles, score_thresh=0.05)(picture)
    assert len(content["annotations"]) == len(expected) > 0
    assert len(Detector(path, score_thresh=0.05)(picture)) != len(expected)


def test_a_config_is_not_evaluated_in_slices(capsys):
    assert cli.main(["eval", "nanodet-plus-m-416", "--tiles", "640"]) == 2
    assert "--tiles is for an exported file" in capsys.readouterr().err
