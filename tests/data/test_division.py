"""A part of train for validation: its size, its classes, and what stays together."""

from __future__ import annotations

import collections
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanodet_d2.data.division import Rule, choose_groups, val_names, write_division
from nanodet_d2.data.sources import source_of, summary
from nanodet_d2.data.splits import class_names, split_content, split_name
from tests.data import layouts, one_set
from tests.data.one_set import data_section, of

pytestmark = pytest.mark.usefixtures("catalog_as_before")


def names(data: dict, split: str) -> set[str]:
    return {x["file_name"] for x in split_content(data, split)[0]["images"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A set without splits, of twelve images."""
    return layouts.coco_single(tmp_path_factory.mktemp("set"))


def content_of(boxes: dict[str, list[str]]) -> dict:
    """COCO content of images with the classes of their boxes."""
    classes = sorted({c for x in boxes.values() for c in x})
    annotations = [
        {"image_id": i, "category_id": classes.index(c)}
        for i, found in enumerate(boxes.values())
        for c in found
    ]
    return {
        "images": [{"id": i, "file_name": x} for i, x in enumerate(boxes)],
        "annotations": annotations,
        "categories": [{"id": i, "name": x} for i, x in enumerate(classes)],
    }


def test_the_same_for_the_same_seed(folder):
    sides = []
    for seed in (0, 0, 1, 2, 3):
        data = data_section(folder, val_share=0.25, split_seed=seed)
        train, val = names(data, "train"), names(data, "val")
        assert train.isdisjoint(val) and train | val == {x.name for x in of()}
        assert 2 <= len(val) <= 4
        sides.append(frozenset(val))
    assert sides[0] == sides[1] and len(set(sides)) == 4


def test_the_order_of_a_file_does_not_matter(tmp_path):
    """Nor do its ids, so that a set that was exported again is divided the same way."""
    boxes = {f"{i}.jpg": ["a"] * (i % 3) + ["b"] * (i % 2) for i in range(40)}
    content = content_of(boxes)
    turned = content_of(dict(reversed(boxes.items())))
    turned["categories"] = [{**x, "id": 9 - x["id"]} for x in turned["categories"]]
    for x in turned["annotations"]:
        x["category_id"] = 9 - x["category_id"]
    rule = Rule(share=0.25, seed=5)
    assert val_names(content, str(tmp_path), rule) == val_names(turned, str(tmp_path), rule)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), share=st.sampled_from([0.1, 0.2, 0.35, 0.5]))
def test_each_class_has_its_share(seed, share):
    rng = np.random.default_rng(seed)
    num_images, num_classes = int(rng.integers(20, 200)), int(rng.integers(1, 12))
    frequency = rng.dirichlet(np.full(num_classes, 0.5))
    images = [
        set(rng.choice(num_classes, size=rng.integers(0, 4), p=frequency).tolist())
        for _ in range(num_images)
    ]
    groups, i = [], 0
    while i < num_images:
        size = int(rng.choice([1, 1, 1, 2, 3]))
        groups.append(images[i : i + size])
        i += size
    chosen = choose_groups(groups, Rule(share=share, seed=seed))
    assert chosen == choose_groups(groups, Rule(share=share, seed=seed))
    val = [image for i in chosen for image in groups[i]]
    assert 0 < len(val) < num_images
    assert len(val) == pytest.approx(share * num_images, abs=10)
    total, found = (collections.Counter(c for x in part for c in x) for part in (images, val))
    for c, n in total.items():
        assert found[c] < n  # there is one to learn from
        assert found[c] == pytest.approx(share * n, abs=1 + 1.5 * n**0.5)


def test_it_is_closer_than_chance():
    """The mean distance from a class's share, against that of images drawn blindly."""
    rng, mine, blind = np.random.default_rng(0), [], []
    for seed in range(30):
        images = [set(rng.choice(8, size=2).tolist()) for _ in range(80)]
        chosen = choose_groups([[x] for x in images], Rule(share=0.2, seed=seed))
        drawn = rng.choice(80, size=16, replace=False)
        for c in range(8):
            wanted = 0.2 * sum(c in x for x in images)
            mine.append(abs(sum(c in images[i] for i in chosen) - wanted))
            blind.append(abs(sum(c in images[i] for i in drawn) - wanted))
    assert np.mean(mine) < 0.5 * np.mean(blind)


def test_a_class_of_one_image_stays_in_train():
    groups = [[{"usual", f"rare {i}"}] for i in range(3)] + [[{"usual"}] for _ in range(17)]
    for seed in range(20):
        for share in (0.2, 0.5, 0.8):
            assert choose_groups(groups, Rule(share=share, seed=seed)).isdisjoint({0, 1, 2})


@pytest.mark.parametrize("groups", [[], [[{1}]], [[{1}] * 5], [[{1}], [{2}]]])
def test_no_side_is_empty(groups):
    with pytest.raises(ValueError, match=r"cannot be divided by data\.val_share=0\.2: give"):
        choose_groups(groups, Rule())


@pytest.mark.parametrize("share", [0, 1, -0.1, 20, float("nan")])
def test_a_share_is_between_0_and_1(folder, share):
    with pytest.raises(ValueError, match=r"data.val_share .*; allowed: above 0, below 1"):
        split_name(data_section(folder, val_share=share), "val")


@pytest.mark.parametrize("keys", [dict(val_share="much"), dict(split_seed="first")])
def test_a_share_and_a_seed_are_numbers(folder, keys):
    with pytest.raises(ValueError, match=r"data\.val_share=.*, data\.split_seed=.*; allowed: a"):
        split_name(data_section(folder, **keys), "train")


def test_images_of_a_video_stay_together(tmp_path):
    boxes = {f"video {i // 10}/frame {i % 10}.jpg": ["a"] for i in range(200)}
    boxes |= {f"single {i}.jpg": ["a"] for i in range(50)}
    rule = Rule(share=0.2, group_by=r"^(video \d+)/")
    val = val_names(content_of(boxes), str(tmp_path), rule)
    videos = collections.Counter(x.split("/")[0] for x in val if "/" in x)
    assert set(videos.values()) == {10} and 40 <= len(val) <= 60
    # Without a group in it, all that matches counts.
    assert val_names(content_of(boxes), str(tmp_path), rule._replace(group_by=r"video \d+")) == val
    with pytest.raises(ValueError, match=r"data.group_by '\(' is no regular expression: missing"):
        val_names(content_of(boxes), str(tmp_path), rule._replace(group_by="("))


def test_a_division_can_be_given_again(folder, tmp_path):
    data = data_section(folder, val_share=0.3, split_seed=7)
    train, val = (summary(source_of(data, x)).names for x in ("train", "val"))
    write_division(tmp_path / "new" / "split.json", train, val)
    again = data_section(folder, split_file=str(tmp_path / "new" / "split.json"))
    assert names(again, "train") == set(train) and names(again, "val") == set(val)
    assert class_names(again) == one_set.CLASSES
    # Beside a COCO file, too.
    section = {"json": str(folder / "labels.json"), "images": str(folder / "images")}
    for keys in (dict(val_share=0.3, split_seed=7), dict(split_file=again["split_file"])):
        given = {"train": section, "val": {"name": "coco_2017_val"}, **keys}
        assert names(given, "train") == set(train) and names(given, "val") == set(val)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda train, val: None, "is no division: needed is json of the lists train and val"),
        (lambda train, val: {"train": train}, "is no division"),
        (lambda train, val: {"train": train[1:], "val": val}, "1 of the 12 images are in neither"),
        (lambda train, val: {"train": train, "val": train[:2]}, "2 images are in both lists"),
        (lambda train, val: {"train": train + val, "val": []}, "is in its list val"),
        (lambda train, val: {"train": [], "val": val + train}, "is in its list train"),
    ],
)
def test_a_file_that_does_not_fit(folder, tmp_path, change, message):
    found = [x.name for x in of()]
    path = tmp_path / "split.json"
    path.write_text(json.dumps(change(found[:9], found[9:])))
    for split in ("train", "val"):
        with pytest.raises(ValueError, match=message):
            split_name(data_section(folder, split_file=str(path)), split)


def test_a_file_that_is_not_there(folder):
    with pytest.raises(FileNotFoundError, match="data.split_file=none.json not found"):
        split_name(data_section(folder, split_file="none.json"), "train")
