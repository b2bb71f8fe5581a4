"""``sahi`` cuts pictures and finds with our detector what it finds itself."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from nanodet_d2.runtime import Detector, Tiles

pytest.importorskip("sahi")

from sahi.predict import get_prediction, get_sliced_prediction  # noqa: E402

from nanodet_d2.data.shapes import CLASS_NAMES, draw_picture  # noqa: E402
from nanodet_d2.sahi_model import NanoDetModel  # noqa: E402


@pytest.fixture(scope="module")
def path(small_models):
    return small_models.file("onnx")


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    """(path of a file, its pixels BGR)"""
    file = tmp_path_factory.mktemp("sahi") / "picture.png"
    image = draw_picture(0, "val", 3, 200)[0]
    cv2.imwrite(str(file), image)
    return str(file), image


def rows(result) -> list[tuple]:
    found = result.object_prediction_list
    return sorted((x.category.id, x.score.value, *x.bbox.to_xyxy()) for x in found)


def test_a_picture_as_the_detector_sees_it(path, picture):
    """Channels, boxes, scores and names."""
    threshold = 0.1
    model = NanoDetModel(model_path=str(path), confidence_threshold=threshold)
    expected = Detector(path, score_thresh=threshold)(picture[1])
    result = get_prediction(picture[0], model)
    mine = sorted(
        zip(expected.class_id.tolist(), expected.confidence.tolist(), *expected.xyxy.T.tolist())
    )
    assert len(mine) > 3
    np.testing.assert_allclose(rows(result), mine, atol=1e-3)
    assert {x.category.name for x in result.object_prediction_list} <= set(CLASS_NAMES)
    assert model.num_categories == len(CLASS_NAMES)


@pytest.mark.parametrize("batch", [1, 3])
def test_slices_land_where_they_were_cut(path, picture, batch):
    detector = Detector(path, score_thresh=0.1)
    model = NanoDetModel(model=detector, confidence_threshold=0.1)
    result = get_sliced_prediction(
        picture[0],
        model,
        slice_height=120,
        slice_width=120,
        overlap_height_ratio=0.2,
        overlap_width_ratio=0.2,
        perform_standard_pred=False,
        postprocess_type="NMS",
        postprocess_match_metric="IOU",
        postprocess_match_threshold=0.999,
        verbose=0,
        batch_size=batch,
    )
    places = [(x, y) for y in (0, 80) for x in (0, 80)]
    expected = []
    for x, y in places:
        part = detector(picture[1][y : y + 120, x : x + 120])
        expected += (part.xyxy + [x, y, x, y]).round(2).tolist()
    found = [x.bbox.to_xyxy() for x in result.object_prediction_list]
    assert 3 < len(found) <= len(expected)
    for box in found:
        assert np.abs(np.array(expected) - box).max(axis=1).min() < 0.02


def test_what_is_refused(path):
    with pytest.raises(ValueError, match="needs model_path, an exported file, or model"):
        NanoDetModel()
    with pytest.raises(ValueError, match="the Detector has to be without tiles"):
        NanoDetModel(model=Detector(path, tiles=Tiles()))
