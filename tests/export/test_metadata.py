"""What exported files say about themselves."""

from __future__ import annotations

import dataclasses
import json

import pytest

from nanodet_d2.export.metadata import (
    ExportMetadata,
    InputDescription,
    export_path,
    files_of,
    format_of,
    metadata_path,
    read_metadata,
)


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
    )


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
    "text, message", [("{", "not json"), ("[]", "format_version"), ("{}", "format_version None")]
)
def test_other_content_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        ExportMetadata.from_json(text, "my.onnx")


def test_inside_wins_over_beside(metadata, tmp_path):
    path = tmp_path / "m.onnx"
    other = dataclasses.replace(metadata, name="beside")
    metadata_path(path).write_text(other.to_json())
    assert read_metadata(path, metadata.to_json()).name == "tiny"
    assert read_metadata(path).name == "beside"


def test_no_metadata_is_refused_with_what_is_missing(tmp_path):
    with pytest.raises(ValueError, match="no metadata, neither inside nor in m.ncnn.json.*reg_max"):
        read_metadata(tmp_path / "m.ncnn.param")


@pytest.mark.parametrize(
    "format, file, beside",
    [
        ("onnx", "m.onnx", "m.onnx.json"),
        ("openvino", "m.xml", "m.openvino.json"),
        ("ncnn", "m.ncnn.param", "m.ncnn.json"),
        ("torchscript", "m.torchscript.pt", "m.torchscript.json"),
    ],
)
def test_names(tmp_path, format, file, beside):
    path = export_path(tmp_path, "m", format)
    assert path.name == file and metadata_path(path).name == beside and format_of(path) == format


def test_names_tell_kind_and_variant(tmp_path):
    path = export_path(tmp_path, "m", "openvino", kind="end2end", variant="int8")
    assert [x.name for x in files_of(path)] == [
        "m_end2end_int8.xml",
        "m_end2end_int8.bin",
        "m_end2end_int8.openvino.json",
    ]


def test_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match=r"model.tflite.*\*\.onnx, \*\.xml, \*\.ncnn\.param"):
        format_of("model.tflite")
