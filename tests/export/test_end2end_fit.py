"""Graphs that fit an image into their input do what the runtime does with it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from nanodet_d2.data.shapes import draw_picture
from nanodet_d2.export.end2end import _before
from nanodet_d2.export.writer import export
from nanodet_d2.runtime import Detections, Detector
from nanodet_d2.runtime.metadata import FIT
from nanodet_d2.runtime.preprocess import fit_of, prepare
from tests.small_models import require_format

LEGACY = dict(
    config="../../nanodet/configs/nanodet_m_320.py",
    overrides=("model.backbone.size=0.5x",),
    size=(128, 64),
)
# Height and width: as the input's; smaller, larger; a line. 64 / 347 * 347 is a hair below 64 in
# float64, as is 64 / 49 * 49, and the last column is lost.
SIZES = [(128, 64), (33, 47), (480, 640), (640, 427), (131, 20), (1, 500), (300, 1), (198, 347)]


def test_the_graph_places_images_as_the_runtime_does(make_job):
    require_format("onnx")
    import onnxruntime
    from onnx import parser

    loaded, _ = make_job(**LEGACY)
    described = dataclasses.replace(loaded.metadata.input, mean=(0.0,) * 3, std=(1.0,) * 3)
    assert described.resize == FIT
    metadata = dataclasses.replace(loaded.metadata, input=described)
    graph = parser.parse_model(_before(metadata, opset=18, ir_version=10))
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    rng = np.random.default_rng(0)
    lost = 0
    for height, width in SIZES:
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        data, size, shift, factor = session.run(None, {"image": image})
        fit = fit_of(height, width, 128, 64)
        assert size.tolist() == [height, width]
        assert factor[0] == np.float32(fit.factor)
        assert shift.tolist() == [np.float32(x) for x in fit.shift[::-1]]
        expected = prepare(image, described)
        # where a position is exactly between two 32nds, either is right
        assert np.abs(data[0] - expected).max() <= 8
        assert (data[0] != expected).mean() < 0.05
        lost += fit.height < 128 and fit.width < 64
    assert lost > 0


def missing(some: Detections, others: Detections) -> int:
    """How many of ``some`` are not among ``others``, but for roundings of the resize."""
    same = some.class_id[:, None] == others.class_id
    gaps = np.abs(some.xyxy[:, None] - others.xyxy).max(axis=2)
    scores = np.abs(some.confidence[:, None] - others.confidence)
    return int((~(same & (gaps < 1) & (scores < 0.01)).any(axis=1)).sum())


@pytest.mark.slow
def test_the_graph_finds_what_the_detector_finds(make_job):
    detectors = []
    for kind in ("decoded", "end2end"):
        (written,) = export(*make_job(formats=["onnx"], kind=kind, **LEGACY))
        (found,) = [x for x in written.differences if x.output == "detections"]
        assert found.compared > 10
        detectors.append(Detector(written.path))
    count = alone = 0
    for i, (height, width) in enumerate([(128, 64), (90, 150), (240, 100), (198, 347), (47, 33)]):
        picture, _ = draw_picture(0, "val", i, max(height, width, 64))
        image = np.ascontiguousarray(picture[:height, :width])
        apart, whole = (detector(image) for detector in detectors)
        assert whole.image_size == (height, width)
        assert whole.xyxy.min() >= 0
        assert (whole.xyxy.max(axis=0) <= [width, height, width, height]).all()
        count += len(apart) + len(whole)
        alone += missing(apart, whole) + missing(whole, apart)
    assert count > 100 and alone <= 0.02 * count
