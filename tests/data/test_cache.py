"""The image cache: every image decoded once, over all workers, within its budget."""

from __future__ import annotations

import itertools
import os
import pickle

import cv2
import numpy as np
import pytest

from nanodet_d2.data import DetectionMapper, ImageCache, RandomWarp, build_train_loader


@pytest.fixture
def records(tmp_path) -> list[dict]:
    result = []
    for i in range(6):
        path = tmp_path / f"{i}.png"
        image = np.random.default_rng(i).integers(0, 256, (20 + i, 30, 3), dtype=np.uint8)
        cv2.imwrite(str(path), image)
        size = {"height": 20 + i, "width": 30} if i % 2 else {}
        result.append({"file_name": str(path), "image_id": i, "annotations": [], **size})
    return result


@pytest.fixture(params=["ram", "disk"])
def cache(request, tmp_path) -> ImageCache:
    return ImageCache(storage=request.param, gigabytes=0.001, folder=str(tmp_path / "cache"))


def load(records, cache, *, workers: int = 0, count: int = 12) -> list[np.ndarray]:
    mapper = DetectionMapper(is_train=True, augmentations=[RandomWarp((24, 32), flip=0.5)])
    loader = build_train_loader(
        records, mapper=mapper, total_batch_size=2, num_workers=workers, seed=1, cache=cache
    )
    batches = itertools.islice(loader, count // 2)
    return [x["image"].numpy() for x in itertools.chain.from_iterable(batches)]


@pytest.mark.parametrize("workers", [0, 2])
def test_changes_nothing_but_the_reading(records, cache, workers):
    expected = load(records, None)
    found = load(records, cache, workers=workers)
    assert all(np.array_equal(a, b) for a, b in zip(expected, found))
    for record in records:  # all six were read in the two passes over them
        os.remove(record["file_name"])
        image = cache.read(record, reader=None)
        assert image.shape[1] == 30 and not image.flags.writeable
    assert all(np.array_equal(a, b) for a, b in zip(expected, load_again(records, cache)))


def load_again(records, cache) -> list[np.ndarray]:
    """From a cache that is full, without preparing it again."""
    mapper = DetectionMapper(is_train=True, augmentations=[RandomWarp((24, 32), flip=0.5)])
    arguments = dict(total_batch_size=2, seed=1)
    loader = build_train_loader(records, mapper=mapper.with_cache(cache), **arguments)
    batches = itertools.islice(loader, 6)
    return [x["image"].numpy() for x in itertools.chain.from_iterable(batches)]


def test_a_process_that_was_not_forked_sees_the_same_block(records, cache):
    cache.prepare(records, image_format="BGR")
    other = pickle.loads(pickle.dumps(cache))
    image = np.full((20, 30, 3), 9, np.uint8)
    other.read(records[0], reader=lambda record: image)
    assert np.array_equal(cache.read(records[0], reader=None), image)


def test_a_file_serves_the_next_training_until_an_image_changes(records, tmp_path):
    def make() -> ImageCache:
        cache = ImageCache(storage="disk", gigabytes=1, folder=str(tmp_path / "cache"))
        cache.prepare(records, image_format="BGR")
        return cache

    first = np.zeros((20, 30, 3), np.uint8) + 7
    make().read(records[0], reader=lambda record: first)
    assert np.array_equal(make().read(records[0], reader=None), first)
    os.utime(records[0]["file_name"], ns=(1, 1))
    second = first + 1
    assert np.array_equal(make().read(records[0], reader=lambda record: second), second)


def test_what_does_not_fit_is_refused_with_the_numbers(records, tmp_path, monkeypatch):
    needed = sum(3 * 30 * (20 + i) for i in range(6)) + 6 * 8
    cache = ImageCache(storage="ram", gigabytes=needed / 1e9 - 1e-9)
    with pytest.raises(ValueError, match=r"needs 0.00 GB for 6 images; allowed .*1.2197e-05"):
        cache.prepare(records, image_format="BGR")
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 100}))
    cache = ImageCache(storage="disk", gigabytes=1, folder=str(tmp_path / "cache"))
    with pytest.raises(ValueError, match=r"for 6 images; free in .*cache: 0.00 GB"):
        cache.prepare(records, image_format="BGR")


def test_options_are_checked(tmp_path):
    with pytest.raises(ValueError, match="cache.storage 'gpu'; allowed: ram, disk"):
        ImageCache(storage="gpu", gigabytes=1)
    with pytest.raises(ValueError, match="cache.gigabytes 0; allowed: more than 0"):
        ImageCache(storage="ram", gigabytes=0)
    with pytest.raises(ValueError, match="disk needs cache.folder"):
        ImageCache(storage="disk", gigabytes=1)
