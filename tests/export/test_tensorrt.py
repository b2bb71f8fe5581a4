"""Files for TensorRT: the graph up to its plugin, what the plugin makes of it, and DeepStream."""

from __future__ import annotations

import configparser

import numpy as np
import pytest

from nanodet_d2.data.shapes import CLASS_NAMES, draw_picture
from nanodet_d2.runtime import Detector, decode_numpy
from nanodet_d2.runtime.backends import open_backend
from tests.export.efficient_nms import efficient_nms

ATTRIBUTES = ("score_threshold", "iou_threshold", "max_output_boxes", "background_class")


@pytest.fixture
def written(small_models):
    """An ordinary file and one for TensorRT of the same model."""
    return small_models.file("onnx"), small_models.file("tensorrt")


@pytest.mark.parametrize("seed", range(20))
def test_the_plugin_keeps_what_every_other_file_keeps(seed):
    """Where no score and no IoU is exactly its threshold: it keeps that score, drops that box."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 60, (2, 150, 2)).astype(np.float32)
    boxes = np.concatenate([corners, corners + rng.uniform(1, 40, corners.shape)], 2).astype("f4")
    scores = rng.uniform(0, 1, (2, 150, 3)).astype(np.float32) ** 3
    limits = dict(score_threshold=0.05, max_output_boxes=int(rng.integers(1, 120)))
    found = efficient_nms(boxes, scores, iou_threshold=0.6, **limits)
    for n in range(2):
        expected = decode_numpy.select(scores[n], boxes[n], 0.05, 0.6, limits["max_output_boxes"])
        count = int(found[0][n, 0])
        assert count == len(expected[0]) > 0
        for a, b in zip(found[1:], expected):
            np.testing.assert_array_equal(a[n, :count], b)
            assert not a[n, count:].any()


def test_nothing_above_the_threshold():
    found = efficient_nms(
        *(np.ones((1, 5, 4), np.float32), np.zeros((1, 5, 2), np.float32)),
        **dict(score_threshold=0.05, iou_threshold=0.6, max_output_boxes=7),
    )
    assert [x.shape for x in found] == [(1, 1), (1, 7, 4), (1, 7), (1, 7)]
    assert not any(x.any() for x in found)


def test_the_graph_takes_pixels_and_ends_with_the_plugin(written):
    import onnx

    model = onnx.load(str(written[1]))
    *_, plugin = model.graph.node
    assert plugin.op_type == "EfficientNMS_TRT"
    given = {x.name: onnx.helper.get_attribute_value(x) for x in plugin.attribute}
    assert given.pop("plugin_version") == b"1"
    shapes = {
        x.name: [d.dim_value for d in x.type.tensor_type.shape.dim]
        for x in [*model.graph.input, *model.graph.output]
    }
    assert shapes == {
        "data": [1, 3, 96, 64], "num_dets": [1, 1], "det_boxes": [1, 100, 4],
        "det_scores": [1, 100], "det_classes": [1, 100],
    }  # fmt: skip
    # Detections of the whole: pixels through the graph, then the plugin with its attributes.
    detector, ordinary = Detector(written[1]), Detector(written[0])
    image = draw_picture(0, "val", 0, 120)[0][:100]
    pixels = detector.prepare([image])
    assert pixels.max() > 200 and (pixels == np.floor(pixels)).all()
    boxes, scores = open_backend(written[1])(pixels)
    num_dets, det_boxes, det_scores, det_classes = efficient_nms(
        boxes, scores, **{name: given[name] for name in ATTRIBUTES}
    )
    expected = ordinary(image)
    count = int(num_dets[0, 0])
    assert count == len(expected) > 5
    np.testing.assert_array_equal(det_classes[0, :count], expected.class_id)
    np.testing.assert_allclose(det_scores[0, :count], expected.confidence, atol=1e-4)
    in_image = det_boxes[0, :count] * [120 / 64, 100 / 96, 120 / 64, 100 / 96]
    np.testing.assert_allclose(in_image, expected.xyxy, atol=0.05)


def test_deepstream_is_told_what_the_graph_needs(written):
    folder, stem = written[1].parent, written[1].name.removesuffix(".onnx")
    config = configparser.ConfigParser()
    config.read(folder / f"{stem}.nvinfer.txt")
    told = config["property"]
    assert told["onnx-file"] == written[1].name
    assert told["infer-dims"] == "3;96;64"
    assert (told["net-scale-factor"], told["offsets"]) == ("1", "0;0;0")
    assert told["model-color-format"] == "1"  # BGR
    assert told["num-detected-classes"] == str(len(CLASS_NAMES))
    assert told["output-blob-names"] == "num_dets;det_boxes;det_scores;det_classes"
    assert (folder / told["labelfile-path"]).read_text().split() == list(CLASS_NAMES)
    assert config["class-attrs-all"]["pre-cluster-threshold"] == "0.05"


def test_other_onnx_files_are_no_such_file(written, tmp_path):
    other = tmp_path / "other.tensorrt.onnx"
    other.write_bytes(written[0].read_bytes())
    with pytest.raises(ValueError, match="other.tensorrt.onnx has 0 nodes EfficientNMS_TRT; all"):
        Detector(other)
    other.write_bytes(b"\xff" * 50)
    with pytest.raises(ValueError, match="other.tensorrt.onnx is no ONNX file"):
        Detector(other)
