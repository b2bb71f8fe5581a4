"""Large annotated pictures are cut for training as detection cuts them, and planned for."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
from detectron2.config import LazyConfig, instantiate
from detectron2.structures import BoxMode

from nanodet_d2.data import DetectionMapper, ImageCache, RandomWarp, build_train_loader
from nanodet_d2.data.plan import best, choices, propose
from nanodet_d2.data.tiling import cut_record, tile_records
from nanodet_d2.runtime.tiles import Tiles, slices
from tests.small_models import CONFIGS, SMALL

TILES = Tiles(size=100, overlap=0.4)  # of 160 x 100: two slices, from 0 and from 60 on, and all
BRIGHT = 220


def annotation(*box, label: int = 0, crowd: int = 0) -> dict:
    return {
        "bbox": list(box), "bbox_mode": BoxMode.XYXY_ABS, "category_id": label, "iscrowd": crowd
    }  # fmt: skip


def record(*annotations, size=(100, 160), name="a.png") -> dict:
    return {
        "file_name": name, "image_id": 7, "height": size[0], "width": size[1],
        "annotations": list(annotations),
    }  # fmt: skip


def boxes(part: dict) -> list:
    return [x["bbox"] for x in part["annotations"]]


def test_boxes_stay_where_enough_is_visible():
    whole = record(annotation(50, 10, 110, 30), annotation(90, 50, 120, 60, label=2))
    left, right, all_of_it = cut_record(whole, TILES, 0.4)
    assert boxes(left) == [[50, 10, 100, 30]]  # 50 of 60 columns; of the other one 10 of 30
    assert boxes(right) == [[0, 10, 50, 30], [30, 50, 60, 60]]
    assert [x["category_id"] for x in right["annotations"]] == [0, 2]
    assert all_of_it is whole
    assert (right["height"], right["width"], right["image_id"]) == (100, 100, 7)
    assert right["tile"] == {"box": [60, 0, 160, 100], "of": (100, 160)}
    (left, *_) = cut_record(whole, TILES, 0.3)
    assert len(boxes(left)) == 2


def test_all_that_is_seen_of_a_crowd_stays():
    whole = record(annotation(0, 0, 161, 20), annotation(95, 0, 160, 100, crowd=1))
    left = cut_record(whole, TILES, 0.9)[0]
    assert boxes(left) == [[95, 0, 100, 100]]


def test_other_box_modes_are_understood():
    given = {**annotation(50, 10, 60, 20), "bbox_mode": BoxMode.XYWH_ABS}
    left = cut_record(record(given), TILES, 0.4)[0]
    assert boxes(left) == [[50, 10, 100, 30]]


def test_few_slices_without_boxes():
    size = (1000, 1000)
    (several,) = {len(slices(*size, TILES))}
    crowded = record(*(annotation(100 * i, 5, 100 * i + 9, 14) for i in range(10)), size=size)
    parts = cut_record(crowded, TILES, 0.4)
    shown = sum(bool(x["annotations"]) for x in parts)
    assert len(parts) - shown == round(shown / 2) and len(parts) < several
    nothing = cut_record(record(size=size), TILES, 0.4)
    assert len(nothing) == 1  # it teaches the background


def test_small_pictures_and_no_tiles_change_nothing():
    small = record(annotation(1, 1, 9, 9), size=(100, 100))
    assert tile_records([small], TILES, input_size=None) == [small]
    large = record(annotation(1, 1, 9, 9))
    assert tile_records([large], None, input_size=None) == [large]


@pytest.mark.parametrize(
    "tiles", [100, {"size": 100}, {"size": 100, "overlap": 0.4, "min_visible": 1.0}, TILES]
)
def test_ways_to_say_it(tiles):
    found = tile_records([record(annotation(10, 10, 30, 30))], tiles, input_size=None)
    assert [x.get("tile", {}).get("box") for x in found][0] == [0, 0, 100, 100]


@pytest.mark.parametrize(
    "tiles, message",
    [
        ("640", "tiles '640'; allowed: a whole number, auto, or a mapping of size, overlap"),
        ({"sizes": 640}, "allowed: a whole number, auto, or a mapping"),
        ({"size": 640, "min_visible": 0}, "tiles.min_visible 0; allowed: above 0, at most 1"),
        ({"size": 3}, "tiles of size 3; allowed"),
    ],
)
def test_what_is_refused(tiles, message):
    with pytest.raises(ValueError, match=message):
        tile_records([record()], tiles, input_size=(64, 64))


@pytest.fixture
def large(tmp_path) -> dict:
    """A dark picture file with two bright boxes."""
    image = np.full((100, 160, 3), 20, np.uint8)
    objects = [(20, 30, 40, 60), (120, 10, 150, 40)]
    for x0, y0, x1, y1 in objects:
        image[y0:y1, x0:x1] = BRIGHT
    path = tmp_path / "large.png"
    cv2.imwrite(str(path), image)
    return record(*(annotation(*box) for box in objects), name=str(path))


@pytest.mark.parametrize("cached", [False, True])
def test_pixels_and_boxes_are_cut_together(large, cached):
    mapper = DetectionMapper(is_train=True, augmentations=[RandomWarp((50, 50))])
    loader = build_train_loader(
        [large],
        mapper=mapper,
        total_batch_size=1,
        seed=0,
        tiles={"size": 100, "overlap": 0.4, "whole": False},
        cache=ImageCache(storage="ram", gigabytes=0.01) if cached else None,
    )
    seen = set()
    for (sample,) in itertools.islice(loader, 8):
        assert (sample["height"], sample["width"]) == (100, 100)
        ((x0, y0, x1, y1),) = sample["instances"].gt_boxes.tensor.tolist()
        bright = sample["image"][0].numpy() > (20 + BRIGHT) // 2
        rows, columns = np.nonzero(bright)
        assert np.abs(np.array([columns.min(), rows.min()]) - [x0, y0]).max() <= 1
        assert np.abs(np.array([columns.max(), rows.max()]) + 1 - [x1, y1]).max() <= 1
        seen.add(sample["tile"]["box"][0])
    assert seen == {0, 60}
    assert loader.file_names == [large["file_name"]]  # the share of broken files is of files


def test_a_mapper_that_knows_no_slices_is_refused():
    with pytest.raises(ValueError, match="tiles with the mapper dict; allowed: a DetectionMapper"):
        build_train_loader([record()], mapper=dict, total_batch_size=1, tiles=100)


def test_a_broken_file_is_left_to_the_loader(tmp_path, large):
    broken = {"file_name": str(tmp_path / "none.png"), "image_id": 1, "annotations": []}
    found = tile_records([broken, large], TILES, input_size=None)
    assert found[0] == broken and len(found) > 2


def planned(side: int, picture: int, count: int = 40) -> list[dict]:
    """Square pictures with square boxes."""
    return [record(annotation(0, 0, side, side), size=(picture, picture)) for _ in range(count)]


def test_shares_and_costs_by_hand():
    found = choices(planned(20, 2080), [(416, 416)])
    whole, *cut = found
    # 20 px of 2080 at 416 are 4 px
    assert (whole.tiles, whole.small_share, whole.calls, whole.cost) == (None, 1.0, 1.0, 1.0)
    by_size = {x.tiles.size: x for x in cut}
    assert by_size[1024].small_share == 0  # 20 * 416 / 1024 = 8.1
    assert by_size[1280].small_share == 1  # 6.5
    assert by_size[1024].calls == len(slices(2080, 2080, by_size[1024].tiles)) == 10
    # as many calls as 1024, and larger boxes
    assert best(found) is by_size[832] and by_size[832].calls == 10
    (larger, *_) = choices(planned(20, 2080), [(832, 832)])
    assert larger.cost == 4 and larger.small_share == 0  # 8 px are not under 8


def test_pictures_that_need_no_tiles():
    assert propose(planned(100, 500)).tiles is None
    assert propose(planned(100, 500)).input_size == (320, 320)


def test_the_overlap_is_that_of_the_boxes_tiles_are_for():
    for side, overlap in ((20, 0.1), (100, 0.25), (400, 0.1)):  # the last are no small ones
        by_size = {x.tiles and x.tiles.size: x for x in choices(planned(side, 2080), [(416, 416)])}
        assert by_size[416].tiles.overlap == pytest.approx(overlap)


def test_auto_takes_the_proposal(caplog):
    records = planned(12, 1200, 3)
    found = tile_records(records, "auto", input_size=(416, 416))
    proposed = propose(records, [(416, 416)]).tiles
    assert proposed is not None
    assert found[0]["width"] == proposed.size
    assert tile_records(planned(100, 500), "auto", input_size=(416, 416)) == planned(100, 500)


@pytest.mark.parametrize(
    "override", ["train.tiles=48", "dataloader.train.tiles=48", "dataloader.train.tiles={size: 48}"]
)
def test_a_config_trains_on_tiles(shapes_overrides, override):
    overrides = [*shapes_overrides, override, "dataloader.train.num_workers=0"]
    cfg = LazyConfig.apply_overrides(LazyConfig.load(str(CONFIGS / SMALL)), overrides)
    loader = instantiate(cfg.dataloader.train)
    assert len(loader.dataset) > 2 * len(set(loader.file_names)) == 2 * 24
    assert len(next(iter(loader))) == cfg.dataloader.train.total_batch_size


def test_nothing_to_plan_with():
    with pytest.raises(ValueError, match="no box tells how large objects are"):
        propose([record(annotation(0, 0, 50, 50, crowd=1))])
