"""Samples depend on seed, rank and position alone; mixers move pixels and boxes together."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, BoxMode, Instances, pairwise_iou
from detectron2.utils import comm

from nanodet_d2.data import (
    CopyPaste,
    DetectionMapper,
    MixUp,
    Mosaic,
    RandomColor,
    RandomWarp,
    build_train_loader,
)
from nanodet_d2.data.loader import Samples

SIZE = (64, 96)


@pytest.fixture
def records(tmp_path) -> list[dict]:
    """Eight images of one grey level each, with a lighter box of class i % 3."""
    result = []
    for i in range(8):
        image = np.full((80, 120, 3), 20 + 10 * i, np.uint8)
        left = 5 + i + 60 * (i % 2)
        box = [left, 8, left + 40, 60]
        image[box[1] : box[3], box[0] : box[2]] = 150 + 10 * i
        path = tmp_path / f"{i}.png"
        cv2.imwrite(str(path), image)
        annotation = {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": i % 3}
        result.append({"file_name": str(path), "image_id": i, "annotations": [annotation]})
    return result


def mapper(*, random: bool = True) -> DetectionMapper:
    warp = RandomWarp(SIZE, flip=0.5, translate=0.2) if random else RandomWarp(SIZE)
    return DetectionMapper(is_train=True, augmentations=[warp, *([RandomColor()] * random)])


def first(records, count: int = 6, **arguments) -> list[dict]:
    arguments = {"mapper": mapper(), "total_batch_size": 2, "seed": 3, **arguments}
    loader = build_train_loader(records, **arguments)
    samples = itertools.chain.from_iterable(loader)
    return list(itertools.islice(samples, count))


def same(a: list[dict], b: list[dict]) -> bool:
    return all(
        torch.equal(x["image"], y["image"])
        and torch.equal(x["instances"].gt_boxes.tensor, y["instances"].gt_boxes.tensor)
        for x, y in zip(a, b, strict=True)
    )


def test_the_seed_decides_whatever_the_workers(records):
    expected = first(records)
    np.random.seed(123)  # the state outside does not matter
    assert same(first(records), expected)
    assert same(first(records, num_workers=2), expected)
    assert not same(first(records, seed=4), expected)
    mixed = dict(mixers=[Mosaic(0.5), MixUp(0.5), CopyPaste(0.5)], sizes=[SIZE, (96, 96)])
    assert same(first(records, num_workers=1, **mixed), first(records, **mixed))


@pytest.mark.parametrize("repeat_threshold", [0.0, 0.5])
@pytest.mark.parametrize("workers", [0, 2])
def test_goes_on_where_it_stopped(records, workers, repeat_threshold):
    arguments = dict(mapper=mapper(), total_batch_size=2, seed=3)
    arguments["repeat_threshold"] = repeat_threshold
    whole = itertools.islice(build_train_loader(records, **arguments), 12)
    expected = list(itertools.chain.from_iterable(whole))
    loader = build_train_loader(records, num_workers=workers, **arguments)
    loader.start_at(7)
    assert same(list(itertools.chain.from_iterable(itertools.islice(loader, 5))), expected[14:])


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_make_the_batches_of_one(records, ranks, monkeypatch):
    mixed = dict(total_batch_size=6, mixers=[Mosaic(0.5)], sizes=[SIZE, (96, 96)])
    expected = first(records, 12, **mixed)
    found = [None] * 6
    monkeypatch.setattr(comm, "get_world_size", lambda: ranks)
    for rank in range(ranks):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        loader = build_train_loader(records, mapper=mapper(), seed=3, **mixed)
        loader.start_at(1)
        found[rank::ranks] = next(iter(loader))
    assert same(found, expected[6:12])


TRAINING = """
import multiprocessing, os, sys, time
from pathlib import Path
import torch
from nanodet_d2.data import build_train_loader

FOLDER = Path(sys.argv[1])

def leave_process_id(record):
    (FOLDER / str(os.getpid())).touch()
    return {"image": torch.zeros(3, 8, 8)}

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[2])
    records = [{"file_name": "", "image_id": i} for i in range(8)]
    loader = build_train_loader(
        records, mapper=leave_process_id, total_batch_size=1, num_workers=2, seed=0
    )
    batches = iter(loader)
    next(batches), next(batches)  # one of each worker
    print("started", flush=True)
    time.sleep(600)
"""


def is_alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
@pytest.mark.slow
@pytest.mark.parametrize("method", ["forkserver", "fork", "spawn"])
def test_workers_end_with_a_killed_training(tmp_path, method):
    script, folder = tmp_path / "training.py", tmp_path / "workers"
    script.write_text(TRAINING)
    folder.mkdir()
    training = subprocess.Popen(
        [sys.executable, "-W", "ignore", str(script), str(folder), method],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert training.stdout.readline() == "started\n"
    training.kill()
    training.wait()
    workers = [int(file.name) for file in folder.iterdir()]
    assert len(workers) == 2
    deadline = time.monotonic() + 120
    while any(map(is_alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, workers))


def test_one_size_per_batch_and_rank(records):
    sizes = [(64, 64), (64, 96), (96, 64)]
    samples = first(records, 24, sizes=sizes)
    drawn = [tuple(x["image"].shape[1:]) for x in samples]
    assert drawn[0::2] == drawn[1::2] and set(drawn) == set(sizes)
    other = Samples(records, mapper(), seed=3, batch_size=2, sizes=sizes)
    assert [other._size(i) for i in range(12)] == drawn[0::2]


def test_mixers_close(records):
    samples = Samples(records, mapper(), seed=0, batch_size=4, mixers=[Mosaic()], close_after=3)
    assert len(samples[11, 2]["instances"]) > 1  # the last sample of iteration 2
    assert len(samples[12, 2]["instances"]) <= 1


def test_rare_classes_are_repeated(records):
    rare = [{**x, "annotations": [{"category_id": int(i == 0)}]} for i, x in enumerate(records)]

    def image_id(record):
        return {"image_id": record["image_id"]}

    drawn = first(rare, 400, mapper=image_id, repeat_threshold=0.9)
    counts = np.bincount([x["image_id"] for x in drawn])
    assert counts[0] > 1.8 * counts[1:].mean()


def light_share(sample: dict) -> list[float]:
    """Of each box, the share of pixels that are an object's."""
    shares = []
    for left, top, right, bottom in sample["instances"].gt_boxes.tensor.round().int().tolist():
        pixels = sample["image"][0, top:bottom, left:right]
        shares.append(float((pixels > 120).float().mean()))
    return shares


def draw(records, mixer, seed: int = 0, **arguments) -> dict:
    samples = Samples(
        records, mapper(random=False), seed=seed, batch_size=1, mixers=[mixer], **arguments
    )
    return samples[seed, seed % len(records)]


def test_mosaic_moves_boxes_with_the_pixels(records):
    for seed in range(5):
        sample = draw(records, Mosaic(), seed)
        assert sample["image"].shape == (3, *SIZE) and len(sample["instances"]) == 4
        assert sample["instances"].image_size == SIZE
        assert min(light_share(sample)) > 0.8


def test_mixup_has_the_boxes_of_both(records):
    sample = draw(records, MixUp(alpha=1000.0))
    assert len(sample["instances"]) == 2
    # Two backgrounds of 20 + 10 i and 20 + 10 j, half each.
    corner = int(sample["image"][0, -1, -1])
    assert 20 <= corner <= 90 and sample["image"].dtype == torch.uint8


def test_copy_paste_hides_little(records):
    added = 0
    for seed in range(10):
        sample = draw(records, CopyPaste(max_hidden=0.1), seed)
        assert min(light_share(sample)) > 0.8
        boxes = sample["instances"].gt_boxes
        added += len(boxes) - 1
        overlap = pairwise_iou(boxes, boxes).fill_diagonal_(0)
        assert float(overlap.max()) <= 0.1
    assert added > 0


@pytest.mark.parametrize("mixer", [Mosaic(), MixUp(), CopyPaste()])
def test_images_without_boxes_are_mixed(records, mixer):
    empty = [{**x, "annotations": []} for x in records]
    sample = draw(empty, mixer)
    assert sample["instances"].gt_boxes.tensor.shape == (0, 4)
    assert isinstance(sample["instances"], Instances) and isinstance(sample["ignore_boxes"], Boxes)


def test_options_are_checked(records):
    for make, message in (
        (lambda: Mosaic(1.5), "Mosaic probability 1.5; allowed: 0 to 1"),
        (lambda: Mosaic(center=0.0), "Mosaic center 0.0; allowed"),
        (lambda: MixUp(alpha=0), "MixUp alpha 0; allowed: above 0"),
        (lambda: CopyPaste(max_objects=0), "CopyPaste max_objects 0; allowed: 1 or more"),
        (lambda: first(records, total_batch_size=0), "total_batch_size 0; allowed: multiples"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
