"""What an export's name and metadata say of it, and the kit beside it."""

from __future__ import annotations

import hashlib
import json

import cv2
import numpy as np
import pytest

from nanodet_d2 import cli
from nanodet_d2.conformance import check, read_kit, read_result
from nanodet_d2.conformance.pictures import draw
from nanodet_d2.export.job import Job
from nanodet_d2.export.products import Products
from nanodet_d2.runtime import Detector
from nanodet_d2.runtime.backends import backend_of


def test_no_option_takes_another_ones_file(make_job, tmp_path):
    """Of all options together each gives a file of its own, whose metadata tell them apart."""
    loaded, _ = make_job()
    told = {}
    for kind in ("raw", "decoded", "end2end"):
        for options in range(8):
            job = Job(("openvino",), tmp_path, kind=kind, dynamic=bool(options & 1),
                      fp16=bool(options & 2), int8=bool(options & 4))  # fmt: skip
            x = Products(loaded.model, loaded.metadata, job).describe("openvino")
            told[job.path("m", "openvino").name] = (x.kind, x.input.dynamic, x.precision)
    assert len(told) == len(set(told.values())) == 24
    assert told["m.xml"] == ("raw", False, "float32")
    assert told["m_decoded_dynamic_int8_fp16.xml"] == ("decoded", True, "int8_float16")


def test_another_input_size_is_in_the_name(small_models):
    assert small_models.loaded(size=(96, 64)).metadata.name == "demo_shapes_96x64"
    assert small_models.loaded(size=(160, 160)).metadata.name == "demo_shapes"  # the config's own


def test_the_metadata_tell_what_int8_was_calibrated_with(make_job, tmp_path):
    loaded, _ = make_job()
    paths = [tmp_path / "b" / "2.png", tmp_path / "a" / "10.png"]
    int8 = Job(("onnx",), tmp_path, int8=True)
    x = Products(loaded.model, loaded.metadata, int8, paths).describe("onnx")
    assert (x.precision, x.calibration_images) == ("int8", 2)
    assert x.calibration_sha256 == hashlib.sha256(b"10.png\n2.png").hexdigest()
    plain = Products(loaded.model, loaded.metadata, Job(("onnx",), tmp_path)).describe("onnx")
    assert (plain.calibration_images, plain.calibration_sha256) == (0, "")


def test_the_export_writes_a_kit_of_each_file(small_models, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), draw(0, 80, 100))
    recipe, output = small_models.recipe(), tmp_path / "out"
    arguments = ["export", recipe.config, "--weights", recipe.checkpoint, "--no-verify", "--kit"]
    arguments += ["--output", str(output), "--format", "torchscript", "--input-size", "96", "64"]
    assert cli.main([*arguments, "--images", str(tmp_path / "a.png"), *recipe.overrides]) == 0
    assert (output / "demo_shapes_96x64.torchscript.pt").is_file()
    folder = output / "demo_shapes_96x64_torchscript_kit"
    kit = read_kit(folder)
    assert len(kit.pictures) == 1 and kit.metadata.precision == "float32"
    assert check(kit, read_result(folder / "expected.json", kit.metadata, ["picture_0.png"])).same


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind, axes, dtype",
    [("raw", "NCHW", "float32"), ("end2end", "HWC", "uint8")],
)
def test_a_file_from_before_these_fields_is_read(small_models, kind, axes, dtype):
    """As is one that is described by hand."""
    model = small_models.file("onnx", kind=kind)
    beside = backend_of(model).metadata_path(model)
    content = json.loads(beside.read_text())
    new = ("precision", "calibration_images", "calibration_sha256", "output_axes", "score_form",
           "score_comparison", "prior_order", "prior_offset", "box_form", "box_unit", "box_sides",
           "box_clip", "nms_scope", "nms_rivals", "nms_comparison", "nms_order", "nms_limit",
           "empty_boxes", "nms", "vote_threshold", "vote_comparison", "vote_owner", "vote_scope",
           "vote_weight", "vote_power")  # fmt: skip
    new_of_input = ("axes", "dtype", "interpolation", "pixel_offset", "position_steps",
                    "position_rounding", "border", "value_rounding")  # fmt: skip
    for name in new:
        del content[name]
    for name in new_of_input:
        del content["input"][name]
    old = beside.with_name("old.json")
    old.write_text(json.dumps(content))
    found, now = Detector(model, metadata=old).metadata, Detector(model).metadata
    assert (found.input.axes, found.input.dtype) == (axes, dtype)
    assert found.input == now.input and found.output_axes == now.output_axes
    assert found.nms == "plain" and found.vote_above is None
    assert found.precision == "" and now.precision == "float32"
    image = draw(0, 80, 100)
    a, b = Detector(model, metadata=old)(image), Detector(model)(image)
    np.testing.assert_array_equal(a.xyxy, b.xyxy)
