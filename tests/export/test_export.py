"""Exports from the checkpoint to files that compute what PyTorch does, and what is refused."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import logging

import numpy as np
import pytest
import torch

from nanodet_d2 import cli
from nanodet_d2.data.shapes import CLASS_NAMES
from nanodet_d2.export import products
from nanodet_d2.export.formats import find_format
from nanodet_d2.export.loading import load_model
from nanodet_d2.export.verify import Mismatch
from nanodet_d2.export.writer import export, summary
from nanodet_d2.runtime import Detector
from nanodet_d2.runtime.backends import backend_of, open_backend
from nanodet_d2.runtime.metadata import read_metadata
from nanodet_d2.runtime.preprocess import stretch
from tests.small_models import FORMAT_CASES, SMALL, formats_here, require, require_format

TIMM = "nanodet_plus_timm_mobilenetv3_320.py"
SMALL_TIMM = ("model.backbone.model_name=mobilenetv3_small_050",)
CASES = {
    "square": dict(size=(128, 128)),
    "320x256": dict(size=(320, 256), config="nanodet_plus_m_320.py"),
    "1 class": dict(classes=1),
    "80 classes": dict(classes=80),
    "m-1.5x": dict(config="nanodet_plus_m_1_5x_320.py", size=(128, 64)),
    "timm": dict(config=TIMM, overrides=SMALL_TIMM, size=(128, 64)),
}


def suffix(format: str) -> str:
    return find_format(format).backend.suffix


def weights_file(path):
    return backend_of(path).files(path)[-2]  # the last is the json


def metadata_of(path):
    return read_metadata(path, open_backend(path).embedded, backend_of(path).metadata_path(path))


def check(written, loaded, job):
    """Files are there, verified and able to say what they are."""
    assert all(x.path.name.endswith(suffix(f)) for x, f in zip(written, job.formats))
    assert len(written) == len(job.formats)
    for x in written:
        assert x.differences
        assert all(d.value <= d.allowed for d in x.differences)
        beside = json.loads(backend_of(x.path).metadata_path(x.path).read_text())
        metadata = metadata_of(x.path)
        assert json.loads(metadata.to_json()) == beside
        asked = loaded.metadata.input
        assert (metadata.input.height, metadata.input.width) == (asked.height, asked.width)
        assert len(metadata.checkpoint_sha256) == 64


@pytest.mark.parametrize("format", FORMAT_CASES)
def test_raw(make_job, format):
    loaded, job = make_job(formats=[format])
    (written,) = export(loaded, job)
    check([written], loaded, job)
    detections = [x for x in written.differences if x.output == "detections"]
    assert detections[0].value == 0


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_matrix(make_job, case):
    loaded, job = make_job(formats=formats_here(), **CASES[case])
    written = export(loaded, job)
    check(written, loaded, job)
    metadata = metadata_of(written[0].path)
    size = CASES[case].get("size", (96, 64))
    assert (metadata.input.height, metadata.input.width) == size
    assert metadata.input.channel_order == ("RGB" if case == "timm" else "BGR")
    assert len(metadata.class_names) == CASES[case].get("classes", len(CLASS_NAMES))


@pytest.mark.slow
@pytest.mark.parametrize("case", ["320x256", "1 class", "timm"])
@pytest.mark.parametrize("kind", ["decoded", "end2end"])
def test_matrix_of_kinds(make_job, case, kind):
    require_format("onnx")
    loaded, job = make_job(formats=formats_here(kind), kind=kind, **CASES[case])
    check(export(loaded, job), loaded, job)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["decoded", "end2end"])
def test_kinds_of_one_network(make_job, kind):
    loaded, job = make_job(formats=["onnx", "openvino"], kind=kind)
    check(export(loaded, job), loaded, job)


@pytest.mark.slow
@pytest.mark.parametrize("formats", [["torchscript"], ["onnx", "openvino", "mnn"]])
def test_dynamic_sizes_and_batches(make_job, formats):
    written = export(*make_job(formats=formats, dynamic=True))
    assert len(written) == len(formats)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (90, 70, 3), dtype=np.uint8) for _ in range(3)]
    for x in written:
        alone = [Detector(x.path)(image) for image in images]
        together = Detector(x.path)(images)
        for a, b in zip(alone, together):
            np.testing.assert_allclose(a.confidence, b.confidence, atol=1e-5, rtol=0)
        other = Detector(x.path, input_size=(160, 128)).raw(images[0])["output"]
        priors = sum(-(-160 // s) * -(-128 // s) for s in (8, 16, 32, 64))
        assert other.shape[:2] == (1, priors)
        with pytest.raises(ValueError, match=r"input size \[160, 130\]; .*multiples of 32"):
            Detector(x.path, input_size=(160, 130))  # not when it runs


@pytest.mark.parametrize("format", [pytest.param("ncnn", marks=pytest.mark.slow), "mnn"])
def test_fp16_halves_the_file(make_job, small_models, format):
    full = small_models.file(format)
    half = export(*make_job(formats=[format], fp16=True))[0].path
    sizes = [weights_file(x).stat().st_size for x in (full, half)]
    assert half.name.endswith("_fp16" + suffix(format))
    assert sizes[1] < 0.6 * sizes[0]


@pytest.mark.slow
def test_litert_takes_images_as_phones_have_them(make_job):
    full, half = (
        export(*make_job(formats=["litert"], fp16=fp16))[0].path for fp16 in (False, True)
    )
    assert half.name.endswith("_fp16.tflite")
    assert half.stat().st_size < 0.65 * full.stat().st_size
    for path in (full, half):
        interpreter = open_backend(path).interpreter
        signature = {"inputs": ["data"], "outputs": ["output"]}
        assert interpreter.get_signature_list() == {"serving_default": signature}
        (given,) = interpreter.get_input_details()
        assert given["shape"].tolist() == [1, 96, 64, 3]


@pytest.mark.slow
def test_ncnn_has_the_official_blobs(make_job):
    (written,) = export(*make_job(formats=["ncnn"], classes=5))
    runtime = open_backend(written.path)
    blobs = runtime.blobs(np.zeros((3, 96, 64), np.float32))
    assert runtime.net.input_names()[0] == "data"
    assert {k: v.shape for k, v in blobs.items()} == {
        "cls8": (5, 12, 8), "cls16": (5, 6, 4), "cls32": (5, 3, 2), "cls64": (5, 2, 1),
        "dis8": (12, 8, 32), "dis16": (6, 4, 32), "dis32": (3, 2, 32), "dis64": (2, 1, 32),
    }  # fmt: skip


def test_end2end_resizes_as_the_evaluation_does(make_job):
    onnx = pytest.importorskip("onnx")
    require("onnxruntime")
    from onnx import parser
    from onnx.reference import ReferenceEvaluator

    from nanodet_d2.export.end2end import _before

    loaded, _ = make_job()
    described = dataclasses.replace(
        loaded.metadata.input, height=96, width=64, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
    )
    metadata = dataclasses.replace(loaded.metadata, input=described)
    graph = ReferenceEvaluator(parser.parse_model(_before(metadata, opset=18, ir_version=10)))
    rng = np.random.default_rng(0)
    for height, width in [(33, 47), (96, 64), (480, 640), (131, 20)]:
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        found = graph.run(None, {"image": image})[0][0].transpose(1, 2, 0)
        expected = stretch(image, 96, 64).astype(np.float32)
        # where a position is exactly between two 32nds, either is right
        assert np.abs(found - expected).max() <= 8
        assert (found != expected).mean() < 0.05
    assert onnx.__version__


@pytest.mark.parametrize(
    "format, name",
    [
        ("torchscript", "output: class scores"),
        pytest.param("onnx", "output: class scores", marks=pytest.mark.slow),
        pytest.param("ncnn", "cls16", marks=pytest.mark.slow),
    ],
)
def test_a_wrong_file_is_found_named_and_set_aside(make_job, monkeypatch, format, name):
    def damaged(model, kind):
        net = export_network(model, kind)
        conv = [m for m in net.head.predictors[1].modules() if isinstance(m, torch.nn.Conv2d)][0]
        with torch.no_grad():
            conv.bias[1] += 0.1
        return net

    export_network = products.export_network
    monkeypatch.setattr(products, "export_network", damaged)
    loaded, job = make_job(formats=[format])
    with pytest.raises(Mismatch, match=f"output '{name}' of image 0 differs.*renamed"):
        export(loaded, job)
    names = [x.name for x in job.output.iterdir()]
    assert any(x.endswith(suffix(format) + ".bad") for x in names)
    assert not any(x.endswith(suffix(format)) for x in names)


def test_swapped_channels_are_found(make_job, monkeypatch):
    describe = products.Products.describe

    def swapped(self, format):
        metadata = describe(self, format)
        other = dataclasses.replace(metadata.input, channel_order="RGB")
        return dataclasses.replace(metadata, input=other)

    monkeypatch.setattr(products.Products, "describe", swapped)
    with pytest.raises(Mismatch, match="class scores"):
        export(*make_job())


def test_no_verify_says_so(make_job, caplog):
    with caplog.at_level(logging.INFO, logger="nanodet_d2"):
        (written,) = export(*make_job(verify=False))
    assert "NOT compared" in caplog.text and "not verified" in summary([written])
    assert written.differences is None


@pytest.mark.parametrize(
    "options, message",
    [
        (
            dict(formats=["keras"]),
            "unknown format keras; known: .*mnn, ncnn, onnx, openvino, tensorrt, torch",
        ),
        (dict(kind="end2end"), "end2end is not there for torchscript; allowed: .*onnx, openvino"),
        (dict(fp16=True), "--fp16 is not there for torchscript; allowed: .*mnn, ncnn, openvino"),
    ],
)
def test_what_is_refused(make_job, options, message):
    loaded, job = make_job(**options)
    with pytest.raises(ValueError, match=message):
        export(loaded, job)
    assert not job.output.exists()


def test_sizes_that_the_network_does_not_take_are_refused(small_models):
    recipe = dataclasses.replace(small_models.recipe(), input_size=(100, 64))
    with pytest.raises(ValueError, match=r"input size \[100, 64\]; allowed: .* multiples of 32"):
        recipe.load()


def test_int8_needs_pictures(make_job):
    with pytest.raises(ValueError, match="--int8 needs --calibration"):
        export(*make_job(formats=["onnx"], int8=True))


def test_missing_runtimes_are_named_before_anything_is_done(make_job, monkeypatch):
    loaded, job = make_job(formats=["onnx", "ncnn"])
    find = importlib.util.find_spec
    lacking = ("onnxslim", "ncnn")
    monkeypatch.setattr(importlib.util, "find_spec", lambda x: None if x in lacking else find(x))
    with pytest.raises(ImportError, match=r"onnxslim, ncnn.*pip install onnxslim ncnn"):
        export(loaded, job)
    assert not job.output.exists()


def test_a_checkpoint_that_does_not_fit_is_refused(small_models):
    other = dataclasses.replace(small_models.recipe(), overrides=("data.classes=[a,b]",))
    with pytest.raises(ValueError, match="does not fit this model"):
        other.load()


def test_averaged_weights_are_exported(small_models, tmp_path):
    recipe = small_models.recipe()
    state = torch.load(recipe.checkpoint)["model"]
    noise = {k: v + 1 if v.is_floating_point() else v for k, v in state.items()}
    torch.save({"model": noise, "ema": state}, tmp_path / "averaged.pth")
    loaded = load_model(recipe.config, str(tmp_path / "averaged.pth"), overrides=recipe.overrides)
    found = loaded.model.state_dict()
    name = next(k for k in found if k.startswith("head.predictors.0"))
    torch.testing.assert_close(found[name], state[name])


def test_the_command(small_models, tmp_path, capsys):
    recipe = small_models.recipe()
    arguments = ["export", recipe.config, "--weights", recipe.checkpoint]
    arguments += ["--output", str(tmp_path), "--input-size", "96", "64"]
    assert cli.main([*arguments, "--format", "torchscript", *recipe.overrides]) == 0
    assert (tmp_path / f"{SMALL[:-3]}_96x64.torchscript.pt").is_file()
    assert f"{SMALL[:-3]}_96x64.torchscript.pt" in capsys.readouterr().out
    assert cli.main([*arguments, "--format", "nothing"]) == 2
