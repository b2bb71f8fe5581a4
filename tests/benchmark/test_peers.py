"""Detectors of other projects: what goes in, and what is made of their outputs, by hand."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from nanodet_d2.benchmark.decoding import DECODINGS, Decoding, find_decoding
from nanodet_d2.benchmark.peer import Peer
from tests.small_models import require

NAMES = ("cat", "dog", "cow")
SIZE = 64  # of the networks below


@pytest.fixture
def network(tmp_path):
    """An ONNX file that gives the same outputs for any picture."""
    require("onnx", "onnxruntime")
    from onnx import TensorProto, checker, helper, numpy_helper, save

    def make(outputs: dict[str, np.ndarray], *, second: bool = False, size=(SIZE, SIZE)):
        nodes = [
            helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))
            for name, value in outputs.items()
        ]
        given = [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, *size])]
        if second:
            given.append(helper.make_tensor_value_info("sizes", TensorProto.INT64, [1, 2]))
            nodes += [
                helper.make_node("Cast", ["sizes"], ["real"], to=TensorProto.FLOAT),
                helper.make_node("Concat", ["real", "real"], ["corners"], axis=1),
                helper.make_node("Mul", ["shares", "corners"], ["boxes"]),
            ]
        results = [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
            )
            for name, value in outputs.items()
            if name != "shares"
        ]
        if second:
            shape = outputs["shares"].shape
            results.insert(1, helper.make_tensor_value_info("boxes", TensorProto.FLOAT, shape))
        graph = helper.make_graph(nodes, "peer", given, results)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 9
        checker.check_model(model)
        save(model, str(tmp_path / "peer.onnx"))
        return tmp_path / "peer.onnx"

    return make


def picture(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), (10, 20, 30), np.uint8)


def gfl_outputs() -> dict[str, np.ndarray]:
    cells = [64, 16, 4, 1]
    scores = [np.zeros((1, n, 3), np.float32) for n in cells]
    logits = [np.zeros((1, n, 4, 8), np.float32) for n in cells]
    cell = 2 * 8 + 3  # row 2, column 3: the centre lies at (28, 20)
    scores[0][0, cell, 1] = 0.75
    scores[0][0, cell + 1, 1] = 0.5  # the same box from the next centre: suppressed
    for side, bins in enumerate((1, 2, 3, 0)):  # strides to the left, up, right, down
        logits[0][0, cell, side, bins] = 100
    for side, bins in enumerate((2, 2, 2, 0)):
        logits[0][0, cell + 1, side, bins] = 100
    scores[3][0, 0, 2] = 0.02  # below the threshold
    flat = [x.reshape(1, -1, 32) for x in logits]
    return {f"output{i}": x for i, x in enumerate([*scores, *flat])}


def test_gfl(network):
    peer = Peer(network(gfl_outputs()), DECODINGS["picodet"], NAMES, num_threads=1)
    found = peer(picture(32, 128))
    assert found.confidence.tolist() == [0.75] and found.names == ["dog"]
    # (20, 4, 52, 20) of the input; a picture twice as wide and half as high
    np.testing.assert_allclose(found.xyxy, [[40, 2, 104, 10]], atol=1e-4)


def test_yolox(network):
    rows = np.zeros((1, 64 + 16 + 4, 3 + 5), np.float32)
    row = rows[0, 1 * 8 + 2]  # stride 8, row 1, column 2
    row[:4] = 0.5, 0.25, 0, np.log(2)
    row[4:] = 0.5, 0.8, 0.01, 0  # objectness, then scores: 0.4 and 0.005
    peer = Peer(network({"output": rows}), DECODINGS["yolox"], NAMES)
    found = peer(picture(32, 128))
    assert found.confidence.tolist() == pytest.approx([0.4]) and found.names == ["cat"]
    # (16, 2, 24, 18) of the input, into which the picture fits at half its size
    np.testing.assert_allclose(found.xyxy, [[32, 4, 48, 32]], atol=1e-4)


def test_detr(network):
    shares = np.float32([[[0.25, 0.5, 0.5, 1], [0, 0, 1, 1], [0, 0, 0.5, 0.5]]])
    outputs = {
        "labels": np.int64([[2, 1, 0]]),
        "shares": shares,
        "scores": np.float32([[0.3, 0.04, 0.9]]),
    }
    peer = Peer(network(outputs, second=True), DECODINGS["deimv2"], NAMES)
    assert peer.output_names == ["labels", "boxes", "scores"]
    found = peer(picture(100, 200))
    assert found.names == ["cat", "cow"] and found.confidence.tolist() == pytest.approx([0.9, 0.3])
    np.testing.assert_allclose(found.xyxy, [[0, 0, 100, 50], [50, 50, 100, 100]], atol=1e-4)


def test_nothing_found(network):
    empty = {k: np.zeros_like(v) for k, v in gfl_outputs().items()}
    assert len(Peer(network(empty), DECODINGS["picodet"], NAMES)(picture(9, 9))) == 0


def test_what_goes_in(network):
    file = network(gfl_outputs())
    described = Decoding("gfl", order="RGB", scale=0.1, mean=(1.0, 2.0, 3.0), std=(1.0, 2.0, 4.0),
                         strides=(8, 16, 32, 64))  # fmt: skip
    data = Peer(file, described, NAMES).prepare([picture(30, 40)])
    assert data.shape == (1, 3, SIZE, SIZE) and data.dtype == np.float32
    # (30, 20, 10) in RGB, a tenth of it
    np.testing.assert_allclose(data[0, :, 5, 5], [2.0, 0.0, -0.5], atol=1e-6)
    plain = Decoding("gfl", order="BGR", resize="fit", border=7, strides=(8, 16, 32, 64))
    data = Peer(file, plain, NAMES).prepare([picture(32, 128)])
    assert data[0, :, 15, 63].tolist() == [10, 20, 30] and (data[0, :, 16:] == 7).all()
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (40, 50, 3), np.uint8)
    cubic = Decoding("gfl", order="BGR", interpolation="cubic", strides=(8, 16, 32, 64))
    expected = cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    data = Peer(file, cubic, NAMES).prepare([image])[0]
    np.testing.assert_array_equal(data.transpose(1, 2, 0), expected)


def test_files_that_do_not_fit_are_refused(network, tmp_path):
    file = network(gfl_outputs())
    with pytest.raises(ValueError, match="gives output0, .*; needed for kind detr: labels, boxes,"):
        Peer(file, DECODINGS["deimv2"], NAMES)
    with pytest.raises(ValueError, match="needed for kind yolox: 1$"):
        Peer(file, DECODINGS["yolox"], NAMES)
    with pytest.raises(ValueError, match="needed for kind gfl: 6: scores, then boxes of each"):
        Peer(file, Decoding("gfl"), NAMES)
    with pytest.raises(ValueError, match=r"takes images \[1, 3, 'N', .*allowed: one picture \(1"):
        Peer(network(gfl_outputs(), size=("N", 64)), DECODINGS["picodet"], NAMES)
    with pytest.raises(FileNotFoundError, match="nothing.onnx not found"):
        Peer(tmp_path / "nothing.onnx", DECODINGS["picodet"], NAMES)


def test_a_description_of_ones_own(tmp_path):
    own = {"kind": "gfl", "strides": [8, 16, 32, 64], "mean": [1, 2, 3], "offset": 0.5}
    (tmp_path / "own.json").write_text(json.dumps(own))
    found = find_decoding(str(tmp_path / "own.json"))
    assert (found.kind, found.strides, found.mean) == ("gfl", (8, 16, 32, 64), (1, 2, 3))
    assert find_decoding("yolox") is DECODINGS["yolox"]
    for name, x in DECODINGS.items():
        x.check(name)


@pytest.mark.parametrize(
    "content, words",
    [
        ("{", "is not json"),
        ("[]", "has no kind; needed: kind; allowed: kind, order, "),
        ('{"order": "RGB"}', "has no kind"),
        ('{"kind": "gfl", "colour": "RGB"}', "has colour; needed"),
        ('{"kind": "ssd"}', "has kind 'ssd'; allowed: detr, gfl, yolox"),
        ('{"kind": "gfl", "resize": "crop"}', "has resize 'crop'; allowed: stretch"),
        ('{"kind": "gfl", "mean": [1, 2]}', "has mean .*allowed: three numbers"),
        ('{"kind": "gfl", "std": [1, 2, 0]}', "has std .*allowed: three numbers above 0"),
        ('{"kind": "gfl", "scale": 0}', "has scale 0; allowed: scale above 0"),
        ('{"kind": "gfl", "bins": 8.5}', "has bins 8.5; allowed: int"),
        ('{"kind": "gfl", "score_threshold": 2}', "has score_threshold 2; allowed: 0 to 1"),
    ],
)
def test_a_wrong_description_is_refused(content, words):
    with pytest.raises(ValueError, match=f"own.json {words}"):
        Decoding.from_json(content, "own.json")


PEERS = {
    "deimv2_femto_416": "deimv2",
    "deimv2_atto_320": "deimv2",
    "picodet_s_416": "picodet",
    "picodet_s_320": "picodet",
    "yolox_nano_416": "yolox",
}


@pytest.mark.parametrize("name", PEERS)
def test_peers_find_what_is_there(shared, name):
    """In eight pictures: more than a third of the large objects. (Each finds 6 or 7 of 11.)"""
    require("onnxruntime")
    file = shared / "peers" / f"{name}.onnx"
    if not file.is_file():
        pytest.skip(f"{file} is not there")
    content = json.loads(
        (shared / "coco_tiny" / "annotations" / "instances_val2017.json").read_text()
    )
    categories = sorted(content["categories"], key=lambda x: x["id"])
    names = [x["name"] for x in categories]
    label = {x["id"]: i for i, x in enumerate(categories)}
    peer = Peer(file, DECODINGS[PEERS[name]], names, num_threads=1)
    hits = total = 0
    for image in content["images"][:8]:
        found = peer(shared / "coco_tiny" / "val2017" / image["file_name"])
        for one in content["annotations"]:
            if one["image_id"] != image["id"] or one["iscrowd"] or one["area"] < 96**2:
                continue
            x, y, w, h = one["bbox"]
            own = found[(found.class_id == label[one["category_id"]]) & (found.confidence > 0.3)]
            gaps = np.abs(own.xyxy - [x, y, x + w, y + h]) / [w, h, w, h]
            hits += bool((gaps.max(axis=1, initial=0) < 0.2).any()) if len(own) else 0
            total += 1
    assert total == 11 and hits > total / 3
