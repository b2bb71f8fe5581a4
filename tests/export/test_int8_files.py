"""INT8 files: what is written, that it runs, and that it finds what the float network does."""

from __future__ import annotations

import dataclasses
import json
import struct

import cv2
import numpy as np
import pytest

from nanodet_d2 import cli
from nanodet_d2.export.expected import Expected
from nanodet_d2.export.formats import find_format, formats
from nanodet_d2.export.int8 import Plan, Range, Scheme, prepare
from nanodet_d2.export.int8.ncnn import FLOAT, FLOAT16, INT8, quantize_ncnn
from nanodet_d2.export.int8.qdq import quantize_onnx
from nanodet_d2.export.job import Job
from nanodet_d2.export.pictures import drawn_images
from nanodet_d2.export.products import Products
from nanodet_d2.export.verify_int8 import verify_int8
from nanodet_d2.runtime import Detector
from nanodet_d2.runtime.backends import backend_of
from tests.small_models import require, require_format

ABLE = [name for name, x in formats().items() if "int8" in x.options]
SIZE = (96, 64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Drawn pictures; as few as do, as each is run for each convolution."""
    folder = tmp_path_factory.mktemp("pictures")
    for i, image in enumerate(drawn_images(*SIZE)[:2]):
        cv2.imwrite(str(folder / f"{i}.png"), image)
    return folder


@pytest.fixture(scope="module")
def products(small_models, folder):
    """Of the small model, calibrated once for all formats; ranked on one picture."""
    loaded = small_models.loaded(size=SIZE)
    job = Job(tuple(ABLE), folder, int8=True, calibration=folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "EXPLAINED", 1)
        products = Products(loaded.model, loaded.metadata, job, sorted(folder.glob("*.png")))
        products.quantized(find_format("onnx").scheme)
    return products


def test_the_formats_that_have_it():
    assert ABLE == ["ncnn", "onnx", "openvino"]
    assert all((x.scheme is not None) == (name in ABLE) for name, x in formats().items())


@pytest.mark.slow
@pytest.mark.parametrize("format", ABLE)
def test_it_finds_what_the_float_network_finds(products, small_models, tmp_path, format):
    require_format(format)
    loaded = small_models.loaded(size=SIZE)
    path = tmp_path / f"small{find_format(format).backend.suffix}"
    products.write(format, path)
    images = drawn_images(*SIZE)
    reference = Expected(loaded.model, loaded.metadata, images)
    lost, added = verify_int8(path, [reference])
    assert lost.compared >= 10 and lost.value <= 0.1 * lost.compared >= added.value
    detector = Detector(path)
    for image, expected in zip(images, reference.raw):
        found = detector.raw(image)["output"][0]
        off = np.abs(found - expected)[:, : len(loaded.metadata.class_names)]
        assert 0 < off.mean() < 0.01
    assert detector.metadata.precision == "int8"
    sizes = [backend_of(x).files(x)[-2].stat().st_size for x in (path, small_models.file(format))]
    assert sizes[0] < 0.5 * sizes[1]  # of the file with the weights


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["decoded", "end2end"])
def test_onnx_of_another_kind(products, small_models, tmp_path, kind):
    require_format("onnx")
    loaded = small_models.loaded(size=SIZE)
    job = dataclasses.replace(products.job, kind=kind)
    other = Products(loaded.model, loaded.metadata, job, products._calibration)
    other._prepared = products._calibrated()  # takes seconds
    path = tmp_path / "small.onnx"
    other.write("onnx", path)
    reference = Expected(loaded.model, loaded.metadata, drawn_images(*SIZE))
    lost, added = verify_int8(path, [reference])
    assert lost.value <= 0.1 * lost.compared >= added.value


@pytest.mark.slow
def test_the_command_explains(small_models, folder, tmp_path, capsys):
    require_format("onnx")
    recipe = small_models.recipe()
    arguments = ["export", recipe.config, "--weights", recipe.checkpoint, "--format", "onnx"]
    arguments += ["--output", str(tmp_path), "--input-size", "96", "64", *recipe.overrides]
    assert cli.main([*arguments, "--explain"]) == 2
    assert "--explain is about --int8" in capsys.readouterr().err
    arguments += ["--int8", "--calibration", str(folder), "--calibration-count", "1"]
    assert cli.main([*arguments, "--explain", "--no-verify"]) == 0
    printed = capsys.readouterr().out
    beside = json.loads((tmp_path / "demo_shapes_96x64_int8.onnx.explain.json").read_text())
    worst = next(iter(beside["costs"]))
    assert worst in printed and beside["pictures"] == 1
    assert list(beside["costs"].values()) == sorted(beside["costs"].values(), reverse=True)
    assert set(beside["in_float"]) <= set(beside["costs"])
    assert not any(name.startswith("head.predictors") for name in beside["costs"])


# -- what is written ---------------------------------------------------------------------------


def plan(*names, symmetric=False, outputs=False):
    """Inputs of [-1, 1.55] and outputs of [-2, 3.1]: steps of 0.01 and 0.02, or 1.55 / 127."""
    return Plan(
        scheme=Scheme(symmetric=symmetric, outputs=outputs, depthwise=True),
        inputs=dict.fromkeys(names, Range(-1.0, 1.55)),
        outputs=dict.fromkeys(names, Range(-2.0, 3.1)),
    )


@pytest.fixture
def onnx_model():
    """A convolution whose input goes into a sum as well, and one more."""
    require("onnx", "onnxruntime")
    from onnx import parser

    model = parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 18]>
        network (float[1, 1, 1, 4] data) => (float[1, 2, 1, 4] output)
        <float[2, 1, 1, 1] a_weight = {1.27, 0.635}, float[2] a_bias = {0.5, -0.25},
         float[2, 2, 1, 1] b_weight = {1.0, 0.0, 0.0, 1.0}> {
            middle = Conv (data, a_weight, a_bias)
            after = Conv (middle, b_weight)
            output = Add (after, data)
        }"""
    )
    for x in model.graph.initializer:  # the parser takes no dots
        x.name = x.name.replace("_", ".")
    for node in model.graph.node:
        node.input[:] = [name.replace("_", ".") for name in node.input]
    return model


def run_onnx(model, data):
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {"data": data})[0]


def test_only_the_convolution_reads_the_stored_tensor(onnx_model):
    import onnx

    quantize_onnx(onnx_model, plan("a"))
    onnx.checker.check_model(onnx_model, full_check=True)
    kinds = [x.op_type for x in onnx_model.graph.node]
    assert kinds == ["DequantizeLinear", "QuantizeLinear", "DequantizeLinear",
                     "Conv", "Conv", "Add"]  # fmt: skip
    names = {x.name for x in onnx_model.graph.initializer}
    assert "a.weight" not in names and "b.weight" in names
    data = np.float32([[[[0.014, -5.0, 5.0, 0.0]]]])
    stored = np.float32([[[[0.01, -1.0, 1.55, 0.0]]]])
    expected = np.concatenate([1.27 * stored + 0.5, 0.635 * stored - 0.25], axis=1) + data
    np.testing.assert_allclose(run_onnx(onnx_model, data), expected, atol=1e-4)


def test_a_stored_output_is_stored_once(onnx_model):
    quantize_onnx(onnx_model, plan("a", "b", outputs=True))
    kinds = [x.op_type for x in onnx_model.graph.node]
    assert kinds.count("QuantizeLinear") == 3  # data, and the output of either convolution
    data = np.float32([[[[0.014, -5.0, 5.0, 0.0]]]])
    found = run_onnx(onnx_model, data) - data
    first = 1.27 * np.float32([0.01, -1.0, 1.55, 0.0]) + 0.5
    np.testing.assert_allclose(found[0, 0, 0], first, atol=0.021)
    np.testing.assert_allclose(found / 0.02, np.round(found / 0.02), atol=1e-3)


def test_a_channel_that_is_nothing_but_its_bias_keeps_it(onnx_model):
    from onnx import numpy_helper

    weight = next(x for x in onnx_model.graph.initializer if x.name == "a.weight")
    changed = np.float32([0.0, 0.635]).reshape(2, 1, 1, 1)
    weight.CopyFrom(numpy_helper.from_array(changed, "a.weight"))
    quantize_onnx(onnx_model, plan("a", outputs=True))
    found = run_onnx(onnx_model, np.zeros((1, 1, 1, 4), np.float32))
    np.testing.assert_allclose(found[0, :, 0, 0], [0.5, -0.25], atol=0.0101)


PARAM = """7767517
5 5
Input                    in0                      0 1 data
Convolution              conv_0                   1 1 data 1 0=2 1=1 5=1 6=2
ConvolutionDepthWise     convdw_1                 1 1 1 2 0=2 1=1 5=0 6=2 7=2
Split                    split                    1 2 2 3 4
Convolution              conv_2                   1 1 3 out 0=1 1=1 5=1 6=2
"""
WEIGHTS = {
    "c": (np.float32([0.5, -1.0]).reshape(1, 2, 1, 1), np.float32([3.0])),
    "a": (np.float32([1.27, 0.635]).reshape(2, 1, 1, 1), np.float32([0.5, -0.25])),
    "b": (np.float32([2.0, -0.1]).reshape(2, 1, 1, 1), None),
}
BIN = b"".join(
    (
        FLOAT, struct.pack("<4f", 1.27, 0.635, 0.5, -0.25),
        FLOAT, struct.pack("<2f", 2.0, -0.1),
        b"of another layer",
        FLOAT, struct.pack("<3f", 0.5, -1.0, 3.0),
    )
)  # fmt: skip


def test_ncnn_files_byte_by_byte():
    param, data = quantize_ncnn(PARAM, BIN, WEIGHTS, plan("a", "b", symmetric=True), fp16=False)
    step = 127 / 1.55
    assert data == b"".join(
        (
            INT8, struct.pack("<4b", 127, 127, 0, 0),  # up to 4 bytes
            struct.pack("<2f", 0.5, -0.25),
            struct.pack("<4f", 100.0, 200.0, step, step),  # handed on to the next one
            INT8, struct.pack("<4b", 127, -127, 0, 0),
            struct.pack("<3f", 63.5, 1270.0, step),
            b"of another layer",
            BIN[-16:],
        )
    )  # fmt: skip
    old, new = PARAM.splitlines(), param.splitlines()
    assert [line.split() for line in new[:3]] == [line.split() for line in old[:3]]
    assert new[3].split() == [*old[3].split(), "8=101"]
    assert new[4].split() == [*old[4].split(), "8=1"]  # what reads it is no convolution
    assert new[5].split() == old[5].split() and new[6].split() == old[6].split()


def test_ncnn_in_float_is_left_as_it_is():
    param, data = quantize_ncnn(PARAM, BIN, WEIGHTS, plan(symmetric=True), fp16=False)
    assert data == BIN
    assert [x.split() for x in param.splitlines()] == [x.split() for x in PARAM.splitlines()]


def test_ncnn_in_half_precision():
    _, data = quantize_ncnn(PARAM, BIN, WEIGHTS, plan("a", "b", symmetric=True), fp16=True)
    assert data.endswith(FLOAT16 + struct.pack("<2e", 0.5, -1.0) + struct.pack("<f", 3.0))


def test_a_layer_that_is_not_recognised_is_refused():
    other = {**WEIGHTS, "b": (WEIGHTS["b"][0] + 1, None)}
    with pytest.raises(ValueError, match="pnnx changed those of its layer convdw_1"):
        quantize_ncnn(PARAM, BIN, other, plan("a", symmetric=True), fp16=False)
