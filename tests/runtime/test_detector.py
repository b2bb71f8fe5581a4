"""One detector over all exported files."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
import torch

from nanodet_d2.data.shapes import CLASS_NAMES, draw_picture
from nanodet_d2.export.expected import Expected
from nanodet_d2.export.loading import load_model
from nanodet_d2.export.verify import FP32, verify
from nanodet_d2.runtime import Detections, Detector
from nanodet_d2.runtime.backends import backend_of, backends, open_backend
from nanodet_d2.runtime.images import load_image
from tests.blocking import run_without
from tests.small_models import CONFIGS, FORMAT_CASES


@pytest.fixture(scope="module")
def exported(small_models):
    """A model of the drawn shapes, and its TorchScript file."""
    return small_models.loaded(), small_models.file("torchscript")


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return draw_picture(0, "val", 0, 120)[0][:100]


@pytest.mark.parametrize("format", FORMAT_CASES)
def test_detections_are_those_of_the_model(small_models, picture, format):
    loaded, path = small_models.loaded(), small_models.file(format)
    expected = Expected(loaded.model, loaded.metadata, [picture])
    assert len(expected.detections[0]) > 0
    verify(path, [expected], FP32)
    assert Detector(path).backend == backends()[format].name


def test_path_array_and_list_give_the_same(exported, picture, tmp_path):
    detector = Detector(exported[1])
    cv2.imwrite(str(tmp_path / "x.png"), picture)
    from_array = detector(picture)
    from_path = detector(tmp_path / "x.png")
    listed = detector([picture, str(tmp_path / "x.png")])
    assert from_array.image_size == (100, 120) and detector.backend == "torchscript"
    assert detector.class_names == from_array.class_names == CLASS_NAMES
    for found in (from_path, *listed):
        assert isinstance(found, Detections)
        np.testing.assert_array_equal(found.xyxy, from_array.xyxy)
        np.testing.assert_array_equal(found.confidence, from_array.confidence)
        np.testing.assert_array_equal(found.class_id, from_array.class_id)
    assert detector([]) == []


def test_threshold_and_boxes_within_the_image(exported, picture):
    low = Detector(exported[1])(picture)
    middle = float(np.median(low.confidence))
    high = Detector(exported[1], score_thresh=middle)(picture)
    assert 0 < len(high) < len(low) and float(high.confidence.min()) > middle
    assert (np.diff(low.confidence) <= 0).all()  # best first
    boxes = low.xyxy
    assert (boxes >= 0).all() and (boxes[:, 2] <= 120).all() and (boxes[:, 3] <= 100).all()


def test_nothing_to_find(exported, picture):
    found = Detector(exported[1], score_thresh=1.0)(picture)
    assert len(found) == 0 and found.xyxy.shape == (0, 4)
    assert found.confidence.shape == found.class_id.shape == (0,)


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4)), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)]
)
def test_other_arrays_are_refused(exported, image):
    with pytest.raises(ValueError, match=r"allowed: \(height, width, 3\), uint8"):
        Detector(exported[1])(image)


def test_a_file_without_metadata_is_refused_unless_given(exported, picture, tmp_path):
    loaded, path = exported
    bare = tmp_path / "bare.torchscript.pt"
    torch.jit.save(torch.jit.load(path), bare)
    with pytest.raises(ValueError, match="no metadata.*class_names"):
        Detector(bare)
    given = tmp_path / "facts.json"
    given.write_text(loaded.metadata.to_json())
    assert len(Detector(bare, metadata=given)(picture)) == len(Detector(path)(picture))


@pytest.mark.parametrize(
    ("field", "value"),
    [("reg_max", 15), ("class_names", ("a", "b")), ("strides", (8, 16, 32)), ("kind", "decoded")],
)
def test_metadata_of_another_model_are_refused(exported, picture, tmp_path, field, value):
    """Not decoded into boxes without sense."""
    loaded, path = exported
    given = tmp_path / "facts.json"
    given.write_text(dataclasses.replace(loaded.metadata, **{field: value}).to_json())
    with pytest.raises(ValueError, match=r"small.torchscript.pt gives .*its metadata asks for"):
        Detector(path, metadata=given)(picture)


def test_an_odd_number_of_priors_is_not_odd(exported, picture):
    """Sizes that are no multiples of the strides round up, as the network does."""
    x = exported[0].metadata
    height, width = x.input.height, x.input.width
    priors = sum(-(-height // s) * -(-width // s) for s in x.strides)
    assert Detector(exported[1]).raw(picture)["output"].shape[1] == priors


def test_an_input_size_of_a_dynamic_file(small_models, picture):
    path = small_models.file("torchscript", dynamic=True)
    detector = Detector(path, input_size=(128, 96))
    assert detector.prepare([picture, picture]).shape == (2, 3, 128, 96)
    together = detector([picture, picture[:50]])  # in one batch
    assert [x.image_size for x in together] == [(100, 120), (50, 120)]
    assert len(detector(picture)) == len(together[0]) > 0
    with pytest.raises(ValueError, match=r"input size \[100, 64\]; allowed: .*multiples of 32"):
        Detector(path, input_size=(100, 64))


def test_pictures_may_have_as_many_pixels_as_asked(exported, picture, tmp_path):
    cv2.imwrite(str(tmp_path / "x.png"), picture)
    assert len(Detector(exported[1], max_pixels=100 * 120)(tmp_path / "x.png"))
    with pytest.raises(ValueError, match="120 x 100 pixels declared, max_pixels is 11999"):
        Detector(exported[1], max_pixels=100 * 120 - 1)(tmp_path / "x.png")
    with pytest.raises(ValueError, match="max_pixels 0; allowed"):
        Detector(exported[1], max_pixels=0)


def test_a_panorama_beyond_opencvs_limit(exported, tmp_path):
    wide = np.zeros((40, 33_000, 3), np.uint8)
    wide[:, 16_500:] = 200
    cv2.imwrite(str(tmp_path / "wide.png"), wide)
    found = Detector(exported[1], score_thresh=0.0)(tmp_path / "wide.png")
    assert found.image_size == (40, 33_000) and len(found) > 0


def test_users_are_told_which_files_are_programs():
    assert "TorchScript file is a program" in " ".join(Detector.__doc__.split())
    assert "TorchScript file is a program" in " ".join(open_backend.__doc__.split())


def test_what_is_refused(exported, tmp_path):
    path = exported[1]
    with pytest.raises(ValueError, match="known names"):
        Detector("model.keras")
    with pytest.raises(ValueError, match="config.py is no exported file"):
        Detector("config.py")
    with pytest.raises(FileNotFoundError, match="absent.torchscript.pt not found"):
        Detector(tmp_path / "absent.torchscript.pt")
    with pytest.raises(ValueError, match="takes an input of 96 x 64 only"):
        Detector(path, input_size=(64, 64))
    with pytest.raises(ValueError, match="cannot be used"):
        Detector(path)(tmp_path / "absent.jpg")
    for wrong in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match=f"score_thresh {wrong}; allowed: 0 to 1"):
            Detector(path, score_thresh=wrong)
    for wrong in (0, -1):
        with pytest.raises(ValueError, match=f"num_threads {wrong}; allowed: 1 or more"):
            Detector(path, num_threads=wrong)
    with pytest.raises(ValueError, match="device 'tpu' with torchscript; allowed: cpu, cuda, mps"):
        Detector(path, device="tpu")


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_a_device_that_is_not_there_is_refused_and_not_replaced(small_models, format):
    path = small_models.file(format)
    device = {"onnx": "coreml", "openvino": "npu"}[format]
    with pytest.raises(ValueError, match=f"device '{device}': this {backends()[format].name} has"):
        Detector(path, device=device)
    assert Detector(path, device="cpu").backend == backends()[format].name


def test_an_engine_that_is_not_installed_is_named(small_models, monkeypatch):
    path = small_models.file("onnx")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        ImportError, match="small.onnx needs onnxruntime, .*pip install onnxruntime"
    ):
        Detector(path)


def test_an_mnn_file_is_run_in_silence(small_models, picture, capfd):
    """Standard output belongs to the command, and MNN greets there when it is imported."""
    path = small_models.file("mnn")
    Detector(path)(picture)
    program = f"from nanodet_d2.runtime import Detector; Detector({str(path)!r}); print('mine')"
    done = run_without((), program)
    assert (done.returncode, done.stdout) == (0, "mine\n"), done.stderr
    assert capfd.readouterr().out == ""


@pytest.mark.slow
def test_executorch_files_with_different_threads_take_turns(small_models, picture, tmp_path):
    """Their number is one of the process, and changing it leaves loaded methods without any."""
    path = small_models.file("executorch")
    detectors = [Detector(path, num_threads=count) for count in (1, 2, None)]
    expected = detectors[0].raw(picture)["output"]
    for _ in range(3):
        for detector in detectors:
            np.testing.assert_allclose(detector.raw(picture)["output"], expected, atol=1e-4)
    pool = detectors[0]._backend._pool
    detectors[0](picture)
    assert pool._threadpool_get_thread_count() == 1
    detectors[1](picture)
    assert pool._threadpool_get_thread_count() == 2
    damaged = tmp_path / "damaged.pte"
    damaged.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="executorch cannot load .*damaged.pte"):
        Detector(damaged)


def test_a_damaged_mnn_file_is_refused(small_models, tmp_path):
    content = small_models.file("mnn").read_bytes()
    damaged = tmp_path / "damaged.mnn"
    for part in (content[: len(content) // 2], b""):
        damaged.write_bytes(part)
        with pytest.raises(ValueError, match="MNN cannot load .*damaged.mnn"):
            Detector(damaged)


def test_the_official_ncnn_model(shared, tmp_path):
    pytest.importorskip("ncnn")
    weights = shared / "weights"
    loaded = load_model(
        str(CONFIGS / "nanodet_plus_m_416.py"), str(weights / "nanodet-plus-m_416.pth")
    )
    facts = backend_of("m.param").metadata_path(tmp_path / "m.param")
    facts.write_text(loaded.metadata.to_json())
    image = next((shared / "coco_tiny" / "val2017").glob("*.jpg"))
    reference = Expected(loaded.model, loaded.metadata, [load_image(image)])
    detector = Detector(weights / "nanodet-plus-m_416.param", metadata=facts, num_threads=1)
    raw = detector.raw(image)["output"][0]
    assert np.abs(raw - reference.raw[0]).max() < 1e-3
    assert len(detector(image)) == len(reference.detections[0])


SIGNAL_AFTER_ITS_END = """
import gc, os, signal, sys, threading
import numpy as np
from nanodet_d2.runtime import Detector

signal.signal(signal.SIGCHLD, lambda *_: None)
held = [Detector(sys.argv[1], num_threads=1)]
held[0](np.zeros((40, 40, 3), np.uint8))
thread = threading.Thread(target=lambda: (held.clear(), gc.collect()))
thread.start()
thread.join()
os.kill(os.getpid(), signal.SIGCHLD)
"""


def test_an_openvino_model_may_end_in_another_thread(small_models):
    """OpenVINO gives the thread that loads a model another stack for signals on some processors;
    the next signal used to end the process where the model's end had taken that back."""
    done = run_without([], SIGNAL_AFTER_ITS_END, str(small_models.file("openvino")))
    assert done.returncode == 0, done.stderr
