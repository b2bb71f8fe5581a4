"""Images of an evaluation are looked at before a training."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest
from detectron2.utils import comm
from PIL import Image

from nanodet_d2.data import DetectionMapper, RandomWarp, build_test_loader, build_train_loader
from nanodet_d2.data.validation import (
    copied_images,
    require_usable_images,
    shared_images,
    warn_of_shared_images,
)


@pytest.fixture
def records(tmp_path) -> list[dict]:
    result = []
    for i in range(6):
        path = tmp_path / f"{i}.jpg"
        Image.new("RGB", (40, 30), color=(40 * i, 0, 0)).save(path)
        result.append({"file_name": str(path), "height": 30, "width": 40, "image_id": i})
    return result


def mapper(**arguments) -> DetectionMapper:
    return DetectionMapper(is_train=False, augmentations=[RandomWarp((32, 32))], **arguments)


def test_good_images_are_loaded_in_order(records):
    loader = build_test_loader(records, mapper=mapper(), num_workers=1)
    assert [batch[0]["image_id"] for batch in loader] == list(range(6))
    assert loader.num_workers == 1 and loader.file_names == [x["file_name"] for x in records]


def test_images_of_one_size_go_in_batches(records):
    def batches(mapper, **arguments) -> list[list[int]]:
        loader = build_test_loader(records, mapper=mapper, batch_size=4, **arguments)
        return [[x["image_id"] for x in batch] for batch in loader]

    singles = [[i] for i in range(6)]
    assert batches(mapper()) == batches(mapper(), num_workers=2) == [[0, 1, 2, 3], [4, 5]]
    # Padded to each other's sizes they would be other images.
    for augmentations in ([RandomWarp((32, 32), keep_ratio=True)], []):
        various = DetectionMapper(is_train=False, augmentations=augmentations)
        assert batches(various) == singles
    assert batches(dict) == singles
    with pytest.raises(ValueError, match="dataloader.test.batch_size 0; allowed: 1 or more"):
        build_test_loader(records, mapper=mapper(), batch_size=0)


def test_all_that_cannot_be_used_are_named_at_once(records):
    Path(records[1]["file_name"]).write_bytes(b"no image")
    Path(records[2]["file_name"]).write_bytes(b"")
    Path(records[4]["file_name"]).unlink()
    records[5] = {**records[5], "height": 31}
    with pytest.raises(ValueError) as error:
        build_test_loader(records, mapper=mapper())
    text = str(error.value)
    assert text.startswith("4 of the 6 images of the evaluation cannot be used: repair them, or re")
    for i, reason in ((1, "not an image of the"), (2, "the file is empty"), (4, "no such file")):
        assert f"{records[i]['file_name']}: {reason}" in text
    assert f"{records[5]['file_name']}: 40 x 30 pixels, 40 x 31 in the annotations" in text
    assert "\n" not in text


def test_the_mappers_limit_holds_and_another_mapper_reads_what_it_can(records):
    with pytest.raises(ValueError, match="40 x 30 pixels declared, max_pixels is 1199"):
        build_test_loader(records, mapper=mapper(max_pixels=1199))
    Path(records[0]["file_name"]).write_bytes(b"of another format")
    assert len(build_test_loader(records, mapper=dict)) == 6


def test_no_images_and_no_sizes_are_fine(records):
    require_usable_images([], max_pixels=10)
    require_usable_images([{"file_name": records[0]["file_name"]}], max_pixels=1200)


def test_images_behind_a_url_are_left_out_with_a_word(caplog):
    with caplog.at_level(logging.INFO, logger="nanodet_d2"):
        require_usable_images([{"file_name": "s3://x/y.jpg"}, {"image": 3}], max_pixels=10)
    assert "2 images by URL are not opened before their use" in caplog.text


def test_ranks_share_the_work_and_the_error(records, monkeypatch):
    """Each opens a third, and says what all have found."""
    Path(records[1]["file_name"]).write_bytes(b"no image")
    opened = []
    monkeypatch.setattr(comm, "get_world_size", lambda: 3)
    monkeypatch.setattr(comm, "get_rank", lambda: 2)
    monkeypatch.setattr(comm, "all_gather", lambda x: opened.append(x) or [{}, {"b": "bad"}, x])
    with pytest.raises(ValueError, match="1 of the 6 images .* They are b: bad"):
        require_usable_images(records, max_pixels=10**6)
    assert opened == [{}]  # the broken one is another rank's


def test_thousands_of_images_take_seconds(tmp_path, records):
    start = time.process_time()
    require_usable_images(records * 800, max_pixels=10**6)  # 4,800
    assert time.process_time() - start < 20  # 1 s on one core


def test_shared_images_are_found_however_their_folder_is_named(tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "images")
    monkeypatch.chdir(tmp_path)
    train = ["images/a.jpg", "images/b.jpg", "s3://x/c.jpg", ""]
    val = [str(tmp_path / "linked" / "b.jpg"), "./images/c.jpg", "s3://x/c.jpg", ""]
    assert shared_images(train, val) == [val[0], val[2]]
    assert shared_images([], val) == shared_images(train, []) == []


def test_a_training_on_its_own_evaluation_is_named_once(records, caplog):
    train = build_train_loader(
        [{**x, "annotations": []} for x in records[:2]],
        mapper=DetectionMapper(is_train=True, augmentations=[RandomWarp((32, 32))]),
        total_batch_size=1,
        seed=0,
    )
    with caplog.at_level(logging.WARNING, logger="nanodet_d2"):
        warn_of_shared_images(train, build_test_loader(records[2:], mapper=mapper()))
        warn_of_shared_images(train, [[{}]])  # a loader of somebody else's
        assert not [x for x in caplog.records if x.name.startswith("nanodet_d2")]
        warn_of_shared_images(train, build_test_loader(records[1:], mapper=mapper()))
    assert "1 of the 5 images of the evaluation are trained on as well" in caplog.text
    assert f"The first: {records[1]['file_name']}" in caplog.text


def test_copies_under_other_names_are_found(records, tmp_path):
    copy = tmp_path / "copy.jpg"
    copy.write_bytes(Path(records[1]["file_name"]).read_bytes())
    train = [x["file_name"] for x in records[:3]]
    val = [records[4]["file_name"], str(copy), str(tmp_path / "missing.jpg"), "s3://x/c.jpg"]
    assert copied_images(train, val) == [str(copy)]
    assert copied_images([], val) == copied_images(train, []) == []
