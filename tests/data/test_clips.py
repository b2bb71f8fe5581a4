"""Drawn videos: ids that last, occlusions, gaps, and ground truth that fits the pixels."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from nanodet_d2.data.clip_set import FPS, make_clips
from nanodet_d2.data.clips import MODEL_NAMES, draw_clip, make_scene, mot_truth
from nanodet_d2.data.shapes import CLASS_NAMES, MIN_VISIBLE, box_of
from nanodet_d2.data.synthetic import CATEGORY_IDS

SIZE, FRAMES = 96, 60


@pytest.fixture(scope="module")
def clip() -> list:
    return list(draw_clip(0, "val", 1, frames=FRAMES, size=SIZE))


def test_the_same_seed_gives_the_same_clip(clip):
    again = list(draw_clip(0, "val", 1, frames=3, size=SIZE))
    for (image, objects), (other, others) in zip(clip, again):
        np.testing.assert_array_equal(image, other)
        assert list(objects) == list(others)
    other, _ = next(draw_clip(1, "val", 1, frames=1, size=SIZE))
    assert image.shape == (SIZE, SIZE, 3) and (other != clip[0][0]).mean() > 0.5


def test_an_id_is_one_object_that_moves_steadily(clip):
    centers: dict[int, dict[int, np.ndarray]] = {}
    names: dict[int, set[str]] = {}
    for frame, (_, objects) in enumerate(clip):
        for number, item in objects.items():
            assert item.visible.sum() >= MIN_VISIBLE * item.total_area
            names.setdefault(number, set()).add(item.name)
            box = box_of(item.full)
            if box.min() > 0 and box.max() < SIZE:  # not cut by the border
                centers.setdefault(number, {})[frame] = (box[:2] + box[2:]) / 2
    assert all(len(x) == 1 for x in names.values()) and len(names) >= 3
    steps = [
        np.abs(places[i + 1] - places[i]).max()
        for places in centers.values() for i in places if i + 1 in places
    ]  # fmt: skip
    assert max(steps) <= 3 and np.mean(steps) > 0.3


def test_pillars_hide_objects_for_a_while():
    gaps = 0
    for index in range(2):
        seen: dict[int, list[int]] = {}
        for frame, (_, objects) in enumerate(draw_clip(0, "val", index, frames=150, size=SIZE)):
            for number in objects:
                seen.setdefault(number, []).append(frame)
        gaps += sum(int((np.diff(frames) > 3).sum()) for frames in seen.values())
    assert gaps >= 2
    scene, _ = make_scene(0, "val", 0, SIZE)
    assert scene.pillars and scene.pillars[0][0].any(axis=0).sum() < 0.3 * SIZE


def test_ground_truth_as_text(clip):
    _, objects = clip[7]
    lines = mot_truth(7, objects)
    number, item = next(iter(objects.items()))
    x0, y0, x1, y1 = box_of(item.full).tolist()
    values = lines[0].strip().split(",")
    assert values[:8] == [
        "8", str(number), str(x0), str(y0), str(x1 - x0), str(y1 - y0), "1",
        str(MODEL_NAMES.index(item.name) + 1),
    ]  # fmt: skip
    assert MIN_VISIBLE <= float(values[8]) <= 1 and len(lines) == len(objects)


def test_classes_are_numbered_as_a_model_of_the_files_has_them():
    assert sorted(MODEL_NAMES) == sorted(CLASS_NAMES)
    ids = [CATEGORY_IDS[name] for name in MODEL_NAMES]
    assert ids == sorted(ids)


def test_a_set_on_disk(tmp_path):
    form = {"train_frames": 9, "train_every": 4, "frames": 20, "every": 5, "image_size": SIZE}
    made = make_clips(tmp_path / "set", num_train=2, num_val=1, **form)
    for split, count in (("train", 6), ("val", 4)):
        content = json.loads(open(made.splits[split]["json"]).read())
        assert len(content["images"]) == count and content["annotations"]
        ids = [x["id"] for x in content["annotations"]]
        assert ids == list(range(1, len(ids) + 1))
        first = cv2.imread(f"{made.splits[split]['images']}/{content['images'][0]['file_name']}")
        assert first.shape == (SIZE, SIZE, 3)
    ((video, truth),) = made.clips
    capture = cv2.VideoCapture(str(video))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 20 and capture.get(cv2.CAP_PROP_FPS) == FPS
    numbers = {int(line.split(",")[0]) for line in truth.read_text().splitlines()}
    assert numbers <= set(range(1, 21)) and len(numbers) > 10
    with pytest.raises(ValueError, match="exists; allowed: a new folder"):
        make_clips(tmp_path / "set")
