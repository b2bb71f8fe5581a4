"""Exports from the checkpoint to files that compute what PyTorch does, and what is refused."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import logging

import cv2
import numpy as np
import pytest
import torch
from nanodet_d2.export.__main__ import main
from nanodet_d2.export.metadata import SUFFIXES, metadata_path, read_metadata
from nanodet_d2.export.runtimes import open_model

from nanodet_d2.export import builder, writer
from nanodet_d2.export.network import load_model
from nanodet_d2.export.verify import Mismatch
from nanodet_d2.export.writer import export
from nanodet_d2.predictor import Detector, stretch
from tests.export.small_models import SMALL, require

FORMATS = tuple(SUFFIXES)
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


def check(written, job):
    """Files are there, verified and able to say what they are."""
    assert [x.path.name.endswith(SUFFIXES[f]) for x, f in zip(written, job.formats)]
    assert len(written) == len(job.formats)
    for x in written:
        assert x.differences
        assert all(d.value <= d.allowed for d in x.differences)
        beside = json.loads(metadata_path(x.path).read_text())
        metadata = read_metadata(x.path, open_model(x.path).embedded)
        assert json.loads(metadata.to_json()) == beside
        assert (metadata.input.height, metadata.input.width) == job.input_size
        assert len(metadata.checkpoint_sha256) == 64


@pytest.mark.parametrize("format", FORMATS)
def test_raw(make_job, format):
    job = make_job(formats=[format])
    (written,) = export(job)
    check([written], job)
    detections = [x for x in written.differences if x.output == "detections"]
    assert detections[0].value == 0


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_matrix(make_job, case):
    job = make_job(formats=FORMATS, **CASES[case])
    written = export(job)
    check(written, job)
    metadata = read_metadata(written[0].path)
    assert metadata.input.channel_order == ("RGB" if case == "timm" else "BGR")
    assert len(metadata.class_names) == CASES[case].get("classes", 3)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["320x256", "1 class", "timm"])
@pytest.mark.parametrize("kind", ["decoded", "end2end"])
def test_matrix_of_kinds(make_job, case, kind):
    formats = [f for f in FORMATS if f in writer.ALLOWED[f"--kind {kind}"]]
    job = make_job(formats=formats, kind=kind, **CASES[case])
    check(export(job), job)


@pytest.mark.parametrize("kind", ["decoded", "end2end"])
def test_kinds_of_one_network(make_job, kind):
    job = make_job(formats=["onnx", "openvino"], kind=kind)
    check(export(job), job)


def test_dynamic_sizes_and_batches(make_job):
    job = make_job(formats=["onnx", "openvino", "torchscript"], dynamic=True)
    written = export(job)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (90, 70, 3), dtype=np.uint8) for _ in range(3)]
    for x in written:
        alone = [Detector(x.path)(image) for image in images]
        together = Detector(x.path)(images)
        for a, b in zip(alone, together):
            torch.testing.assert_close(a.scores, b.scores, atol=1e-5, rtol=0)
        other = Detector(x.path, input_size=(160, 128)).raw(images[0])["output"]
        priors = sum(-(-160 // s) * -(-128 // s) for s in (8, 16, 32, 64))
        assert other.shape[:2] == (1, priors)


def test_fp16_halves_the_file(make_job):
    job = make_job(formats=["ncnn"])
    full = export(job)[0].path
    half = export(dataclasses.replace(job, fp16=True))[0].path
    sizes = [len(open(str(x).replace(".param", ".bin"), "rb").read()) for x in (full, half)]
    assert half.name.endswith("_fp16.ncnn.param")
    assert sizes[1] < 0.6 * sizes[0]


def test_ncnn_has_the_official_blobs(make_job):
    (written,) = export(make_job(formats=["ncnn"], classes=5))
    runtime = open_model(written.path)
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

    loaded = load_model(*_config_and_weights(make_job()), overrides=("data.classes=[a,b,c]",))
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


def _config_and_weights(job):
    return job.config_file, job.checkpoint


@pytest.mark.parametrize(
    "format, name",
    [("torchscript", "output: class scores"), ("onnx", "output: class scores"), ("ncnn", "cls16")],
)
def test_a_wrong_file_is_found_named_and_set_aside(make_job, monkeypatch, format, name):
    def damaged(model, kind):
        net = network(model, kind)
        conv = [m for m in net.head.predictors[1].modules() if isinstance(m, torch.nn.Conv2d)][0]
        with torch.no_grad():
            conv.bias[1] += 0.1
        return net

    network = builder.network
    monkeypatch.setattr(builder, "network", damaged)
    job = make_job(formats=[format])
    with pytest.raises(Mismatch, match=f"output '{name}' of image 0 differs.*renamed"):
        export(job)
    names = [x.name for x in job.output.iterdir()]
    assert any(x.endswith(SUFFIXES[format] + ".bad") for x in names)
    assert not any(x.endswith(SUFFIXES[format]) for x in names)


def test_swapped_channels_are_found(make_job, monkeypatch):
    describe = builder.Builder.describe

    def swapped(self, format):
        metadata = describe(self, format)
        other = dataclasses.replace(metadata.input, channel_order="RGB")
        return dataclasses.replace(metadata, input=other)

    monkeypatch.setattr(builder.Builder, "describe", swapped)
    with pytest.raises(Mismatch, match="class scores"):
        export(make_job())


def test_no_verify_says_so(make_job, caplog):
    with caplog.at_level(logging.INFO, logger="nanodet_d2"):
        (written,) = export(make_job(verify=False))
    assert "NOT compared" in caplog.text and "not verified" in caplog.text
    assert written.differences is None


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(formats=["tflite"]), "unknown format tflite; known: onnx, openvino, ncnn, torch"),
        (dict(kind="end2end"), "end2end is not there for torchscript; allowed: onnx, openvino"),
        (dict(fp16=True), "--fp16 is not there for torchscript; allowed: openvino, ncnn"),
        (dict(size=(100, 64)), r"input size \[100, 64\]; allowed: .* multiples of 32"),
    ],
)
def test_what_is_refused(make_job, options, message):
    job = make_job(**options)
    with pytest.raises(ValueError, match=message):
        export(job)
    assert not job.output.exists()


def test_int8_needs_pictures(make_job):
    with pytest.raises(ValueError, match="--int8 needs --calibration"):
        export(make_job(formats=["onnx"], int8=True))


def test_missing_runtimes_are_named_before_anything_is_done(make_job, monkeypatch):
    job = make_job(formats=["onnx", "ncnn"])
    find = importlib.util.find_spec
    lacking = ("onnxslim", "ncnn")
    monkeypatch.setattr(importlib.util, "find_spec", lambda x: None if x in lacking else find(x))
    with pytest.raises(ValueError, match=r"onnxslim, ncnn.*pip install nanodet-d2\[export\]"):
        export(job)
    assert not job.output.exists()


def test_a_checkpoint_that_does_not_fit_is_refused(make_job):
    job = make_job(classes=3)
    other = dataclasses.replace(job, overrides=("data.classes=[a,b]",))
    with pytest.raises(ValueError, match="does not fit this model"):
        export(other)


def test_averaged_weights_are_exported(make_job):
    job = make_job()
    state = torch.load(job.checkpoint)["model"]
    noise = {k: v + 1 if v.is_floating_point() else v for k, v in state.items()}
    torch.save({"model": noise, "ema": state}, job.checkpoint)
    loaded = load_model(job.config_file, job.checkpoint, overrides=job.overrides)
    name = "head.predictors.0.weight"
    found = loaded.model.state_dict()
    name = next(k for k in found if k.startswith("head.predictors.0"))
    torch.testing.assert_close(found[name], state[name])


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_int8(make_job, tmp_path, format):
    require("nncf")
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        noise = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{i}.png"), cv2.GaussianBlur(noise, (0, 0), 2))
    job = make_job(formats=[format], int8=True, calibration=folder)
    (written,) = export(job)
    assert "_int8" in written.path.name
    content = written.path.read_text(errors="ignore")
    assert ("QuantizeLinear" if format == "onnx" else "FakeQuantize") in content
    assert Detector(written.path).raw(rng.integers(0, 256, (50, 50, 3), dtype=np.uint8))


def test_the_command(make_job, capsys):
    job = make_job()
    arguments = ["--config-file", job.config_file, "--checkpoint", job.checkpoint]
    arguments += ["--output", str(job.output), "--input-size", "96", "64"]
    assert main([*arguments, "--format", "torchscript", "--", *job.overrides]) == 0
    assert (job.output / f"{SMALL[:-3]}.torchscript.pt").is_file()
    assert main([*arguments, "--format", "nothing"]) == 1
