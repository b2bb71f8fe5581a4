"""The synthetic data set: same bytes from the same seed, honest boxes, a folder that heals."""

import json
import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from nanodet_d2.data import shapes, synthetic
from nanodet_d2.data.synthetic import CATEGORY_IDS, make_shapes_dataset

SMALL = {"num_train": 24, "num_val": 17, "image_size": 96}


def _contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def _without_set_facts(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if name.endswith(".jpg")}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict:
    return make_shapes_dataset(tmp_path_factory.mktemp("shapes"), num_train=64, num_val=32, seed=5)


def test_same_seed_same_bytes_other_seed_other_pictures(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        make_shapes_dataset(tmp_path / name, **SMALL, seed=seed)
    a, b, c = (_contents(tmp_path / name) for name in "abc")
    assert a == b
    assert len(a) == 24 + 17 + 3 and a.keys() == c.keys()
    assert all(a[name] != c[name] for name in _without_set_facts(a))


def test_a_picture_depends_on_seed_split_and_index_only(tmp_path):
    make_shapes_dataset(tmp_path / "short", num_train=3, num_val=2, image_size=64)
    make_shapes_dataset(tmp_path / "long", num_train=9, num_val=4, image_size=64)
    short, long = (_without_set_facts(_contents(tmp_path / name)) for name in ("short", "long"))
    assert len(short) == 5 and short.items() <= long.items()
    assert len(set(long.values())) == 13  # no picture of one split is also in the other


def test_loads_with_pycocotools_and_is_well_formed(made):
    for split, count in (("train", 64), ("val", 32)):
        coco = COCO(made[split]["json"])
        assert len(coco.imgs) == count and coco.dataset["info"]["description"]
        assert len(coco.anns) == len(coco.dataset["annotations"]) > 0 and 0 not in coco.anns
        for image in coco.imgs.values():
            pixels = cv2.imread(str(Path(made[split]["images"]) / image["file_name"]))
            assert pixels.shape == (image["height"], image["width"], 3) == (160, 160, 3)
        for item in coco.anns.values():
            x, y, w, h = item["bbox"]
            assert all(isinstance(v, float) for v in item["bbox"]) and item["iscrowd"] == 0
            assert x >= 0 and y >= 0 and w >= 4 and h >= 4 and x + w <= 160 and y + h <= 160
            assert 0 < item["area"] <= w * h


def test_every_class_in_both_splits_under_ids_with_gaps(made):
    for split in ("train", "val"):
        content = json.loads(Path(made[split]["json"]).read_text())
        ids = [category["id"] for category in content["categories"]]
        assert {item["category_id"] for item in content["annotations"]} == set(ids)
        assert 6 <= len(ids) <= 8 and len(set(ids)) == len(ids)
        assert ids != sorted(ids) and 1 not in ids and max(ids) > len(ids)


def test_one_image_in_sixteen_is_empty_and_none_holds_more_than_six(made):
    for split, empty in (("train", 4), ("val", 2)):
        coco = COCO(made[split]["json"])
        counts = [len(coco.getAnnIds(imgIds=[image_id])) for image_id in coco.imgs]
        assert counts.count(0) == empty and max(counts) in (5, 6)


def test_object_sizes_are_spread_about_forty_pixels():
    longest = [
        np.subtract(box[2:], box[:2]).max()
        for index in range(60)
        for box in (shapes.box_of(o.full) for o in synthetic.draw_picture(0, "val", index, 160)[1])
    ]
    assert 32 <= np.median(longest) <= 45
    assert 8 <= min(longest) < 20 and 70 < max(longest) <= 92


@pytest.mark.parametrize("name", CATEGORY_IDS)
def test_stamp_has_the_size_asked_for_and_touches_its_four_sides(name):
    rng = np.random.default_rng(0)
    for size in (12, 33, 90):
        for _ in range(5):
            stamp = shapes.make_stamp(name, rng, size)
            x0, y0, x1, y1 = shapes.box_of(stamp[..., 0] >= shapes.INK)
            assert size * 0.86 - 2 <= max(x1 - x0, y1 - y0) <= size + 1
            if not stamp[..., 1].any():  # no label: the ink alone fills the stamp
                assert max(x0, y0, stamp.shape[1] - x1, stamp.shape[0] - y1) <= 1


def test_box_is_tight_around_the_pixels_that_painting_changed():
    rng = np.random.default_rng(1)
    size, blank = 120, np.full((120, 120, 3), 127, np.float32)
    for name in shapes._SHAPES:  # no label, so that all that changes is the object
        (item,), cover = shapes._place(rng, name, [], size)
        changed = np.abs(shapes._paint(rng, blank, cover) - blank).max(-1)
        box = shapes.box_of(item.full)
        np.testing.assert_allclose(box, shapes.box_of(changed >= 30), atol=1)
        assert (shapes._either(cover)[item.full] >= shapes.INK).all()


def test_written_boxes_are_the_full_extent_and_areas_what_is_in_view(made):
    content = json.loads(Path(made["val"]["json"]).read_text())
    occluded = 0
    for image in content["images"]:
        index = image["id"] - 1
        _, objects = synthetic.draw_picture(5, "val", index, 160)
        items = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        assert [a["category_id"] for a in items] == [CATEGORY_IDS[o.name] for o in objects]
        for item, drawn in zip(items, objects):
            ys, xs = np.nonzero(drawn.full)
            extent = [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
            assert item["bbox"] == extent
            assert item["area"] == drawn.visible.sum() >= 0.4 * drawn.total_area
            assert (drawn.full | ~drawn.visible).all()  # nothing in view that was not drawn
            occluded += drawn.visible.sum() < drawn.full.sum()
    assert occluded > 5  # occlusion does happen


def test_a_complete_set_is_left_alone(tmp_path, caplog):
    first = make_shapes_dataset(tmp_path, **SMALL)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    with caplog.at_level(logging.INFO):
        assert make_shapes_dataset(str(tmp_path), **SMALL) == first
    assert "already holds" in caplog.text
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before
    assert first["train"]["json"] == str(tmp_path / "annotations" / "instances_train.json")
    assert first["val"]["images"] == str(tmp_path / "val")


@pytest.mark.parametrize(
    "name", ["meta.json", "val/shapes_000003.jpg", "annotations/instances_train.json"]
)
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_damaged_set_is_repaired(tmp_path, name, damage):
    make_shapes_dataset(tmp_path, **SMALL)
    whole = _contents(tmp_path)
    path = tmp_path / name
    if damage == "missing":
        path.unlink()
    elif name == "meta.json":
        path.write_text(json.dumps({"description": synthetic.DESCRIPTION}))
    else:
        path.write_bytes(path.read_bytes()[:-100])
    make_shapes_dataset(tmp_path, **SMALL)
    assert _contents(tmp_path) == whole


def test_an_interrupted_run_leaves_no_complete_set_and_is_finished(tmp_path, monkeypatch):
    make_shapes_dataset(tmp_path / "whole", **SMALL)
    drawn, picture = [], synthetic.draw_picture

    def stop_in_val(seed, split, index, size):
        if (split, index) == ("val", 5):
            raise KeyboardInterrupt
        drawn.append(index)
        return picture(seed, split, index, size)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(synthetic, "draw_picture", stop_in_val)
        make_shapes_dataset(tmp_path / "cut", **SMALL)
    assert len(drawn) == 29 and not (tmp_path / "cut" / "meta.json").exists()
    make_shapes_dataset(tmp_path / "cut", **SMALL)
    assert _contents(tmp_path / "cut") == _contents(tmp_path / "whole")


def test_other_parameters_replace_the_set_and_nothing_else(tmp_path):
    make_shapes_dataset(tmp_path, **SMALL)
    (tmp_path / "train" / "mine.jpg").write_bytes(b"keep")
    make_shapes_dataset(tmp_path, **SMALL | {"num_train": 8})
    assert len(list((tmp_path / "train").glob("shapes_*.jpg"))) == 8
    assert (tmp_path / "train" / "mine.jpg").read_bytes() == b"keep"


@pytest.mark.parametrize("name", ["annotations/instances_val.json", "meta.json"])
@pytest.mark.parametrize("text", ['{"info": null, "images": []}', '{"info": {}}', "not json"])
def test_somebody_elses_data_set_is_refused_untouched(tmp_path, name, text):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    with pytest.raises(ValueError, match=f"{path.name} exists and was not made by"):
        make_shapes_dataset(tmp_path, **SMALL)
    assert _contents(tmp_path) == {name: text.encode()}


@pytest.mark.parametrize(
    ("key", "value"),
    [("num_train", 0), ("num_val", -1), ("image_size", 32), ("image_size", 160.0), ("seed", -1)],
)
def test_bad_arguments_are_named_with_what_is_allowed(tmp_path, key, value):
    with pytest.raises(ValueError, match=rf"{key} is {value}, must be an integer from \d+ to \d+"):
        make_shapes_dataset(tmp_path, **{key: value})
    assert not any(tmp_path.iterdir())


def test_progress_is_logged_with_the_time_left(caplog, monkeypatch):
    clock = iter(range(0, 100, 2))
    monkeypatch.setattr(synthetic.time, "monotonic", lambda: next(clock))
    progress = synthetic._Progress(4)
    with caplog.at_level(logging.INFO):
        for _ in range(4):
            progress.step()
    assert [r.message for r in caplog.records] == ["drawn 2 of 4 images, ETA 4 s"]
