"""What exported files say about themselves."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from nanodet_d2.export.job import Job
from nanodet_d2.runtime.backends import backend_of
from nanodet_d2.runtime.checks import check_outputs
from nanodet_d2.runtime.metadata import ExportMetadata, InputDescription, read_metadata


@pytest.fixture
def metadata() -> ExportMetadata:
    described = InputDescription("data", 320, 256, False, "RGB", (1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    return ExportMetadata(
        name="tiny",
        kind="raw",
        class_names=("ink", "Ω"),
        strides=(8, 16),
        reg_max=7,
        input=described,
        outputs=("output",),
        score_threshold=0.05,
        nms_threshold=0.6,
        max_detections=100,
        versions={"torch": "2"},
        checkpoint_sha256="00",
    ).with_outputs(["output"])


def test_json_gives_the_same_back(metadata):
    assert ExportMetadata.from_json(metadata.to_json(), "x") == metadata


@pytest.mark.parametrize("missing", ["class_names", "reg_max", "input"])
def test_missing_fields_are_named(metadata, missing):
    content = dataclasses.asdict(metadata)
    del content[missing]
    with pytest.raises(ValueError, match=f"my.onnx lacks {missing}"):
        ExportMetadata.from_json(json.dumps(content), "my.onnx")


def test_missing_field_of_the_input_is_named(metadata):
    content = dataclasses.asdict(metadata)
    del content["input"]["std"]
    with pytest.raises(ValueError, match="lacks std"):
        ExportMetadata.from_json(json.dumps(content), "my.onnx")


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("name", None, "str"),
        ("class_names", "cat", "tuple"),
        ("class_names", ["cat", 1], "tuple"),
        ("class_names", [], "one name or more"),
        ("strides", [8, "16"], "tuple"),
        ("strides", [8, 0], "numbers above 0"),
        ("reg_max", 7.0, "int"),
        ("reg_max", True, "int"),
        ("reg_max", 0, "1 or more"),
        ("score_threshold", "0.5", "float"),
        ("score_threshold", float("nan"), "float"),
        ("nms_threshold", 1.5, "0 to 1"),
        ("max_detections", -1, "1 or more"),
        ("versions", ["2"], "dict"),
        ("input.height", "320", "int"),
        ("input.width", 0, "1 or more"),
        ("input.dynamic", 1, "bool"),
        ("input.channel_order", "GBR", "BGR or RGB"),
        ("input.mean", [1.0, 2.0], "three numbers"),
        ("input.std", [1, 1, 0], "three numbers above 0"),
        ("input.resize", "letterbox", "stretch or fit"),
        ("input.interpolation", "bicubic", "bilinear"),
        ("input.pixel_offset", 0.5, "0.0"),
        ("input.position_steps", 16, "32"),
        ("input.border", 114, "0"),
        ("input.border", 0.0, "int"),
        ("prior_offset", 0.25, "0.0 or 0.5"),
        ("score_form", "logits", "after_sigmoid"),
        ("nms_scope", "all", "class"),
        ("nms", "soft", "plain or voting"),
        ("vote_threshold", 1.1, "0 to 1"),
        ("vote_weight", "one", "score"),
        ("vote_power", -1, "0 to 100"),
        ("precision", "float8", "float32, float16, int8, int8_float16"),
        ("calibration_images", -1, "0 or more"),
        ("input.size_divisor", 0, "1 or more"),
        ("input.size_divisor", "32", "int"),
    ],
)
def test_values_of_another_type_or_range_are_refused(metadata, field, value, allowed):
    content = dataclasses.asdict(metadata)
    place, name = (content["input"], field[6:]) if field.startswith("input.") else (content, field)
    place[name] = value
    with pytest.raises(ValueError, match=f"my.onnx has {name} .*; allowed: {allowed}"):
        ExportMetadata.from_json(json.dumps(content), "my.onnx")


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("axes", "HWC", "input axes 'HWC'; allowed for kind raw: NCHW, NHWC"),
        ("dtype", "uint8", "input dtype 'uint8'; allowed for kind raw: float32"),
    ],
)
def test_a_form_that_the_kind_does_not_have_is_refused(metadata, name, value, allowed):
    content = dataclasses.asdict(metadata)
    content["input"][name] = value
    with pytest.raises(ValueError, match=f"my.onnx has {allowed}"):
        ExportMetadata.from_json(json.dumps(content), "my.onnx")


def test_axes_of_outputs(metadata):
    names = ["cls8", "cls16", "dis8", "dis16"]
    assert metadata.with_outputs(names).output_axes == (
        "C,H8,W8", "C,H16,W16", "H8,W8,4*(R+1)", "H16,W16,4*(R+1)"
    )  # fmt: skip
    assert metadata.output_axes == ("N,P,C+4*(R+1)",)
    decoded = dataclasses.replace(metadata, kind="decoded").with_outputs(["boxes", "scores"])
    assert decoded.output_axes == ("N,P,4", "N,P,C")
    assert metadata.with_outputs(["cls8", "dis8"]).output_axes == ()  # of a file by others


def test_a_file_from_before_there_was_a_size_divisor(metadata):
    content = dataclasses.asdict(metadata)
    del content["input"]["size_divisor"]
    assert ExportMetadata.from_json(json.dumps(content), "x").input.size_divisor == 1


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((64, 100), r"input size \[64, 100\]; allowed: height and width, multiples of 32"),
        ((64, 0), "multiples of 32"),
        ((64,), "height and width"),
        ((64, 64, 3), "height and width"),
    ],
)
def test_a_size_that_a_dynamic_file_does_not_take_is_refused_at_once(metadata, size, message):
    described = dataclasses.replace(metadata.input, dynamic=True, size_divisor=32)
    with pytest.raises(ValueError, match=message):
        described.resized(size, "my.onnx")
    other = described.resized((64, 96), "my.onnx")
    assert (other.height, other.width) == (64, 96)
    assert described.resized((320, 256), "my.onnx") is described


def test_another_size_needs_a_dynamic_file(metadata):
    with pytest.raises(ValueError, match=r"my.onnx takes an input of 320 x 256 only, .*\[64, 96\]"):
        metadata.input.resized((64, 96), "my.onnx")
    assert metadata.input.resized([320, 256], "my.onnx") is metadata.input


def test_whole_numbers_serve_as_others(metadata):
    content = dataclasses.asdict(metadata)
    content["nms_threshold"], content["input"]["std"] = 1, [1, 2, 3]
    assert ExportMetadata.from_json(json.dumps(content), "x").input.std == (1, 2, 3)


# Two levels of 320 x 256 have 40 * 32 + 20 * 16 = 1600 priors; two classes and 4 * 8 logits.
@pytest.mark.parametrize(
    ("kind", "shapes", "fits"),
    [
        ("raw", [(1, 1600, 34)], True),
        ("raw", [(1, 1600, 35)], False),
        ("raw", [(1, 1280, 34)], False),
        ("raw", [(1, 34, 1600)], False),
        ("raw", [(1600, 34)], False),
        ("raw", [], False),
        ("decoded", [(1, 1600, 4), (1, 1600, 2)], True),
        ("decoded", [(1, 1600, 2), (1, 1600, 4)], False),
        ("decoded", [(1, 1600, 34)], False),
        ("end2end", [(3, 4), (3,), (3,)], True),
        ("end2end", [(0, 4), (0,), (0,)], True),
        ("end2end", [(3, 4), (3,), (2,)], False),
        ("end2end", [(3, 5), (3,), (3,)], False),
    ],
)
def test_outputs_of_another_form_are_refused(metadata, kind, shapes, fits):
    described = dataclasses.replace(metadata, kind=kind)
    outputs = [np.zeros(shape, np.float32) for shape in shapes]
    if fits:
        return check_outputs(outputs, described, 1, (320, 256), "my.onnx")
    with pytest.raises(ValueError, match=r"my.onnx gives .*asks for .*2 classes, reg_max 7"):
        check_outputs(outputs, described, 1, (320, 256), "my.onnx")


def test_classes_without_a_name_are_refused(metadata):
    described = dataclasses.replace(metadata, kind="end2end")
    outputs = [np.zeros((2, 4)), np.zeros(2), np.array([0, 2])]
    with pytest.raises(ValueError, match="classes 0 to 2; its metadata has 2 class names"):
        check_outputs(outputs, described, 1, (320, 256), "my.onnx")


@pytest.mark.parametrize(
    "text, message", [("{", "not json"), ("[]", "format_version"), ("{}", "format_version None")]
)
def test_other_content_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        ExportMetadata.from_json(text, "my.onnx")


def test_inside_wins_over_beside(metadata, tmp_path):
    path = tmp_path / "m.onnx"
    other = dataclasses.replace(metadata, name="beside")
    beside = backend_of(path).metadata_path(path)
    beside.write_text(other.to_json())
    assert read_metadata(path, metadata.to_json(), beside).name == "tiny"
    assert read_metadata(path, None, beside).name == "beside"


def test_no_metadata_is_refused_with_what_is_missing(tmp_path):
    with pytest.raises(ValueError, match="no metadata, neither inside nor in m.ncnn.json.*reg_max"):
        read_metadata(tmp_path / "m.ncnn.param", None, tmp_path / "m.ncnn.json")


@pytest.mark.parametrize(
    "format, file, beside",
    [
        ("onnx", "m.onnx", "m.onnx.json"),
        ("openvino", "m.xml", "m.openvino.json"),
        ("ncnn", "m.ncnn.param", "m.ncnn.json"),
        ("mnn", "m.mnn", "m.mnn.json"),
        ("litert", "m.tflite", "m.litert.json"),
        ("coreml", "m.mlpackage", "m.coreml.json"),
        ("tensorrt", "m.tensorrt.onnx", "m.tensorrt.json"),
        ("executorch", "m.pte", "m.executorch.json"),
        ("torchscript", "m.torchscript.pt", "m.torchscript.json"),
    ],
)
def test_names(tmp_path, format, file, beside):
    path = Job((format,), tmp_path).path("m", format)
    backend = backend_of(path)
    assert path.name == file and backend.format == format
    assert backend.metadata_path(path) == tmp_path / beside


def test_names_tell_kind_and_variant(tmp_path):
    path = Job(("openvino",), tmp_path, kind="end2end", int8=True).path("m", "openvino")
    assert [x.name for x in backend_of(path).files(path)] == [
        "m_end2end_int8.xml",
        "m_end2end_int8.bin",
        "m_end2end_int8.openvino.json",
    ]


def test_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match=r"model.keras.*\*\.ncnn\.param, \*\.onnx, \*\.xml"):
        backend_of("model.keras")
