"""What a detector returns: indexing, names, and the way to detectron2 and supervision."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nanodet_d2.runtime import Detections
from nanodet_d2.runtime.detections import in_image


@pytest.fixture
def found() -> Detections:
    return Detections(
        xyxy=np.float32([[0, 1, 20, 30], [5, 5, 9, 9], [1, 2, 3, 4]]),
        confidence=np.float32([0.9, 0.5, 0.25]),
        class_id=np.int64([1, 0, 1]),
        class_names=("dog", "Ωmega"),
        image_size=(30, 40),
    )


@pytest.mark.parametrize(
    "index, rows",
    [
        (slice(None), [0, 1, 2]),
        (slice(1, None), [1, 2]),
        (slice(0, 0), []),
        (1, [1]),
        (-1, [2]),
        (np.int64(2), [2]),
        ([2, 0], [2, 0]),
        ((0, 1), [0, 1]),
        ([], []),
        ([True, False, True], [0, 2]),
        (np.array([False, True, False]), [1]),
        (np.array([False] * 3), []),
        (np.array([1, 1]), [1, 1]),
        (torch.tensor([True, False, True]), [0, 2]),
    ],
)
def test_indexing(found, index, rows):
    some = found[index]
    assert isinstance(some, Detections) and len(some) == len(rows)
    assert some.xyxy.tolist() == [found.xyxy[i].tolist() for i in rows]
    assert some.confidence.tolist() == [found.confidence[i] for i in rows]
    assert some.class_id.tolist() == [found.class_id[i] for i in rows]
    assert some.xyxy.shape == (len(rows), 4)
    assert (some.xyxy.dtype, some.confidence.dtype) == (np.float32, np.float32)
    assert some.class_id.dtype == np.int64
    assert some.class_names == found.class_names and some.image_size == (30, 40)


def test_by_class_and_score(found):
    assert len(found[found.class_id == 1]) == 2
    assert len(found[(found.class_id == 1) & (found.confidence > 0.5)]) == 1


def test_wrong_indices_are_refused(found):
    for index in (3, -4, [0, 3], np.array([True, False])):
        with pytest.raises(IndexError):
            found[index]


def test_one_after_the_other(found):
    assert [float(x.confidence[0]) for x in found] == [float(x) for x in found.confidence]


def test_names(found):
    assert found.names == ["Ωmega", "dog", "Ωmega"] and found[:0].names == []


def test_instances_of_detectron2(found):
    instances = found.to_instances()
    assert instances.image_size == (30, 40) and len(instances) == 3
    assert instances.pred_boxes.tensor.tolist() == found.xyxy.tolist()
    assert instances.scores.tolist() == found.confidence.tolist()
    assert instances.pred_classes.tolist() == [1, 0, 1]
    assert instances.pred_classes.dtype == torch.int64
    instances.pred_boxes.tensor[:] = 0
    assert found.xyxy[0].tolist() == [0, 1, 20, 30]  # a copy
    assert found[:0].to_instances().pred_boxes.tensor.shape == (0, 4)


def test_supervision_takes_them(found):
    supervision = pytest.importorskip("supervision")
    theirs = supervision.Detections(
        xyxy=found.xyxy, confidence=found.confidence, class_id=found.class_id
    )
    assert len(theirs) == 3 and theirs[theirs.class_id == 1].confidence == pytest.approx(
        [0.9, 0.25]
    )


def test_boxes_are_stretched_to_the_image_and_empty_ones_left_out():
    boxes = np.float32([[0, 0, 32, 16], [8, 8, 8, 20], [60, 60, 80, 80], [70, 0, 90, 9]])
    found = in_image(
        boxes,
        np.float32([0.9, 0.8, 0.7, 0.6]),
        np.array([0, 1, 2, 3]),
        class_names=("a", "b", "c", "d"),
        image_size=(32, 128),
        input_size=(64, 64),
    )
    # The third is cut at the image's edge, the fourth lies beyond it.
    assert found.xyxy.tolist() == [[0, 0, 64, 8], [120, 30, 128, 32]]
    assert found.class_id.tolist() == [0, 2] and found.image_size == (32, 128)
    assert boxes[0].tolist() == [0, 0, 32, 16]  # not changed
