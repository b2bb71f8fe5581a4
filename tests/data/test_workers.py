"""The number of a loader's workers follows from cores and shared memory."""

from __future__ import annotations

import itertools
import logging

import pytest
from detectron2.utils import comm
from PIL import Image

from nanodet_d2.data import DetectionMapper, ImageCache, RandomWarp, build_train_loader
from nanodet_d2.data import workers as module
from nanodet_d2.data.validation import build_test_loader, workers_of_test_loader
from nanodet_d2.data.workers import choose_num_workers, free_shared_memory, usable_cores

MB = 10**6


@pytest.mark.parametrize(
    ("wanted", "cores", "ranks", "count"),
    [
        (None, 2, 1, 2),
        (None, 64, 1, 8),  # at most
        (None, 64, 16, 4),  # ranks of a host share its cores
        (None, 2, 8, 1),  # one at least: it works while the device does
        (12, 2, 1, 12),  # what is asked for is taken
        (0, 64, 1, 0),
    ],
)
def test_cores_decide(wanted, cores, ranks, count):
    chosen = choose_num_workers(wanted, at_most=8, cores=cores, ranks=ranks)
    assert (chosen.count, chosen.reason) == (count, "")


@pytest.mark.parametrize(
    ("wanted", "ranks", "free", "count"),
    [
        (None, 1, 500 * MB, 8),  # (2 * 8 + 1) * 29 MB = 493 MB
        (None, 1, 492 * MB, 7),
        (None, 1, 64 * MB, 0),  # of a container: not even one worker's two, and the one in use
        (4, 1, 200 * MB, 2),  # a given number, too, would end in a bus error
        (4, 2, 522 * MB, 4),  # 2 * 9 * 29 MB
        (4, 2, 521 * MB, 3),
        (0, 1, 0, 0),
        (4, 1, None, 4),  # unknown, as on a Mac
    ],
)
def test_batches_fit_the_shared_memory(wanted, ranks, free, count):
    chosen = choose_num_workers(
        wanted, at_most=8, cores=64, ranks=ranks, batch_bytes=29 * MB, shared_bytes=free
    )
    assert chosen.count == count
    assert bool(chosen.reason) == (count not in (wanted, 8))


def test_the_warning_names_the_sizes_and_what_to_do():
    chosen = choose_num_workers(None, at_most=8, cores=8, batch_bytes=29 * MB, shared_bytes=64 * MB)
    assert chosen.reason == (
        "0 worker processes in place of 8: their batches need 493 MB of shared memory, free in "
        "/dev/shm: 64 MB. A container gets more by docker --shm-size=8g (or --ipc=host)"
    )
    with pytest.raises(ValueError, match="num_workers -1; allowed: 0 or more"):
        choose_num_workers(-1, at_most=8, cores=8)


@pytest.mark.parametrize(
    ("version", "texts", "cores"),
    [
        (0, ["150000 100000"], 2),  # a worth of 1.5
        (0, ["max 100000"], 8),
        (0, ["1000 100000"], 1),
        (1, ["300000\n", "100000\n"], 3),
        (1, ["-1\n", "100000\n"], 8),
        (0, [], 8),  # no such file
        (0, ["torn"], 8),
    ],
)
def test_cores_are_those_of_the_scheduler_and_the_container(
    tmp_path, monkeypatch, version, texts, cores
):
    files = [tmp_path / str(i) for i in range(version + 1)]
    for file, text in zip(files, texts):
        file.write_text(text)
    monkeypatch.setattr(module, "_QUOTAS", (tuple(map(str, files)),))
    affinity = lambda _: set(range(8))  # noqa: E731
    monkeypatch.setattr(module.os, "sched_getaffinity", affinity, raising=False)
    assert usable_cores() == cores


@pytest.fixture
def records(tmp_path) -> list[dict]:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    record = {"file_name": str(tmp_path / "a.png"), "height": 30, "width": 40, "annotations": []}
    return [{**record, "image_id": i} for i in range(4)]


def mapper(**arguments) -> DetectionMapper:
    augmentations = [RandomWarp((1000, 1000))]
    return DetectionMapper(**{"is_train": True, "augmentations": augmentations, **arguments})


def test_loaders_of_a_small_container(records, monkeypatch, caplog):
    """Batches of 8 images of 3 MB in 64 MB: one worker's two batches and the one in use need 72."""
    monkeypatch.setattr(module, "free_shared_memory", lambda: 64 * MB)
    monkeypatch.setattr(module, "usable_cores", lambda: 4)
    with caplog.at_level(logging.WARNING, logger="nanodet_d2"):
        loader = build_train_loader(
            records, mapper=mapper(), total_batch_size=8, num_workers=None, seed=0
        )
    assert loader.num_workers == 0 and len(next(iter(loader))) == 8
    assert caplog.text.count("dataloader.train.num_workers: 0 worker processes in place of 4") == 1
    caplog.clear()
    # Smaller samples fit, and so does the evaluation's single image; another mapper's are unknown.
    small = dict(total_batch_size=8, num_workers=None, seed=0)
    assert build_train_loader(records, mapper=mapper(), sizes=[(64, 64)], **small).num_workers == 4
    assert build_train_loader(records, mapper=dict, **small).num_workers == 4
    assert (
        build_test_loader(records, mapper=mapper(is_train=False), num_workers=None).num_workers == 4
    )
    assert workers_of_test_loader(None, mapper=mapper(augmentations=[])) == 4
    assert not [x for x in caplog.records if x.levelno >= logging.WARNING]
    assert workers_of_test_loader(None, mapper=mapper(), batch_size=8) == 0


def test_the_cache_takes_its_share_of_the_shared_memory(records, monkeypatch):
    cache = ImageCache(storage="ram", gigabytes=1)
    cache.prepare(records, image_format="BGR")
    assert cache.shared_bytes >= 30 * 40 * 3
    assert ImageCache(storage="ram", gigabytes=1).shared_bytes == 0
    monkeypatch.setattr(module, "usable_cores", lambda: 4)
    monkeypatch.setattr(comm, "get_local_size", lambda: 2)
    free = 2 * 9 * (3 * MB + 16 * 1024)  # of two ranks: two workers' two batches each, and one
    monkeypatch.setattr(module, "free_shared_memory", lambda: free)
    common = dict(at_most=8, mapper=mapper())
    assert module.workers_of_loader("x", 4, **common) == 4
    assert module.workers_of_loader("x", 4, reserved=1, **common) == 3


def test_samples_are_the_same_without_the_workers(records):
    def first(count: int | None) -> list:
        loader = build_train_loader(
            records, mapper=mapper(), total_batch_size=2, num_workers=count, seed=1
        )
        return [x["image"].sum().item() for batch in itertools.islice(loader, 2) for x in batch]

    assert first(None) == first(0)
    assert free_shared_memory() is None or free_shared_memory() > 0
