"""One detector over all backends."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from nanodet_d2.export.metadata import InputDescription, metadata_path
from nanodet_d2.export.runtimes import open_model, torch_threads
from nanodet_d2.export.torchscript import export_torchscript

from nanodet_d2.data.shapes import CLASS_NAMES, draw_picture
from nanodet_d2.export.evaluate import main as evaluate_main
from nanodet_d2.export.evaluate import parse_args as evaluate_arguments
from nanodet_d2.export.network import load_model, network
from nanodet_d2.export.verify import FP32, Reference, verify
from nanodet_d2.predictor import Detector, normalize, stretch

sys.path.insert(0, str(Path(__file__).resolve().parent / "export"))
from small_models import CONFIGS, SMALL, random_state  # noqa: E402

SIZE = (96, 64)
OVERRIDES = [f"data.classes=[{','.join(repr(name) for name in CLASS_NAMES)}]"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A model of the drawn shapes, and its TorchScript file."""
    folder = tmp_path_factory.mktemp("exported")
    torch.save({"model": random_state(SMALL, OVERRIDES)}, folder / "model.pth")
    loaded = load_model(
        str(CONFIGS / SMALL), str(folder / "model.pth"), input_size=SIZE, overrides=OVERRIDES
    )
    path = folder / "small.torchscript.pt"
    export_torchscript(network(loaded.model, "raw"), path, loaded.metadata)
    return loaded, path


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return draw_picture(0, "val", 0, 120)[0][:100]


def test_detections_are_those_of_the_model(exported, picture):
    loaded, path = exported
    expected = Reference(loaded.model, loaded.metadata, [picture])
    assert len(expected.detections[0]) > 0
    verify(path, expected, FP32)


def test_path_array_and_list_give_the_same(exported, picture, tmp_path):
    detector = Detector(exported[1])
    cv2.imwrite(str(tmp_path / "x.png"), picture)
    from_array = detector(picture)
    from_path = detector(tmp_path / "x.png")
    listed = detector([picture, str(tmp_path / "x.png")])
    assert from_array.image_size == (100, 120) and detector.backend == "torchscript"
    assert detector.class_names == list(CLASS_NAMES)
    for found in (from_path, *listed):
        torch.testing.assert_close(found.pred_boxes.tensor, from_array.pred_boxes.tensor)
        assert torch.equal(found.pred_classes, from_array.pred_classes)
    assert detector([]) == []


def test_threshold_and_boxes_within_the_image(exported, picture):
    low = Detector(exported[1])(picture)
    middle = float(low.scores.median())
    high = Detector(exported[1], score_thresh=middle)(picture)
    assert 0 < len(high) < len(low) and float(high.scores.min()) > middle
    boxes = low.pred_boxes.tensor
    assert (boxes >= 0).all() and (boxes[:, 2] <= 120).all() and (boxes[:, 3] <= 100).all()


def test_nothing_to_find(exported, picture):
    found = Detector(exported[1], score_thresh=1.0)(picture)
    assert len(found) == 0 and found.pred_boxes.tensor.shape == (0, 4)


def test_a_config_with_its_checkpoint(picture, tmp_path):
    torch.save({"model": random_state(SMALL, [])}, tmp_path / "model.pth")
    detector = Detector(CONFIGS / SMALL, tmp_path / "model.pth", num_threads=1, input_size=SIZE)
    assert detector.backend == "pytorch" and len(detector.class_names) == 80
    assert len(detector([picture, picture])) == 2
    assert detector.raw(picture)["output"].shape[2] == 80 + 32


def test_input_is_normalised_in_the_order_of_the_network():
    image = np.uint8([[[10, 20, 30]]])  # blue, green, red
    facts = dict(name="data", height=1, width=1, dynamic=False, std=(1.0, 2.0, 4.0))
    bgr = InputDescription(channel_order="BGR", mean=(10.0, 10.0, 10.0), **facts)
    rgb = InputDescription(channel_order="RGB", mean=(10.0, 10.0, 10.0), **facts)
    assert normalize(image, bgr).ravel().tolist() == [0, 5, 5]
    assert normalize(image, rgb).ravel().tolist() == [20, 5, 0]
    assert normalize(image, bgr).dtype == np.float32


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


def test_threads_are_restored(exported, picture, tmp_path):
    torch.save({"model": random_state(SMALL, [])}, tmp_path / "model.pth")
    before, seen = torch.get_num_threads(), []
    wanted = before + 1
    for detector in (
        Detector(exported[1], num_threads=wanted),
        Detector(CONFIGS / SMALL, tmp_path / "model.pth", num_threads=wanted, input_size=SIZE),
    ):
        name = "module" if detector.backend == "torchscript" else "network"
        network = getattr(detector._runtime, name)

        def noting(data, network=network):
            seen.append(torch.get_num_threads())
            return network(data)

        setattr(detector._runtime, name, noting)
        assert torch.get_num_threads() == before
        detector(picture)
        assert torch.get_num_threads() == before
    assert seen == [wanted, wanted]
    with pytest.raises(RuntimeError, match="inside"), torch_threads(wanted):
        raise RuntimeError("inside")
    assert torch.get_num_threads() == before
    for wrong in (0, -1):
        with pytest.raises(ValueError, match=f"num_threads {wrong}; allowed: 1 or more"):
            Detector(exported[1], num_threads=wrong)


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
    stretched = stretch(wide, 96, 64)[:90]  # the last rows lie beyond the image's, which is black
    assert (stretched[:, 32:] == 200).all() and (stretched[:, :32] == 0).all()


def test_users_are_told_which_files_are_programs(capsys):
    """Checkpoints are safe to read; TorchScript files and configs are not."""
    assert "TorchScript file are programs" in " ".join(Detector.__doc__.split())
    assert "TorchScript file is a program" in " ".join(open_model.__doc__.split())
    with pytest.raises(SystemExit):
        evaluate_arguments(["--help"])
    assert "TorchScript files are programs" in " ".join(capsys.readouterr().out.split())


def test_what_is_refused(exported, tmp_path):
    path = exported[1]
    with pytest.raises(ValueError, match="known names"):
        Detector("model.tflite")
    with pytest.raises(FileNotFoundError, match="absent.torchscript.pt not found"):
        Detector(tmp_path / "absent.torchscript.pt")
    with pytest.raises(ValueError, match="is a config and needs weights"):
        Detector(CONFIGS / SMALL)
    with pytest.raises(ValueError, match="has its own weights"):
        Detector(path, "model.pth")
    with pytest.raises(ValueError, match="takes an input of 96 x 64 only"):
        Detector(path, input_size=(64, 64))
    with pytest.raises(ValueError, match="cannot be used"):
        Detector(path)(tmp_path / "absent.jpg")


def test_evaluation_by_the_command(exported, shapes, tmp_path, capsys):
    arguments = [str(exported[1]), "--json", shapes["val"]["json"], "--output", str(tmp_path)]
    assert evaluate_main([*arguments, "--images", shapes["val"]["images"]]) == 0
    metrics = json.loads((tmp_path / "evaluation.json").read_text())["bbox"]
    assert 0 <= metrics["AP"] < 50 and "AP-circle" in metrics
    assert evaluate_main([*arguments, "--images", str(tmp_path / "absent")]) == 1


def test_the_official_ncnn_model(shared, tmp_path):
    pytest.importorskip("ncnn")
    weights = shared / "weights"
    loaded = load_model(
        str(CONFIGS / "nanodet_plus_m_416.py"), str(weights / "nanodet-plus-m_416.pth")
    )
    facts = metadata_path(tmp_path / "m.param")
    facts.write_text(loaded.metadata.to_json())
    image = next((shared / "coco_tiny" / "val2017").glob("*.jpg"))
    from nanodet_d2.predictor import load_image

    reference = Reference(loaded.model, loaded.metadata, [load_image(image)])
    detector = Detector(weights / "nanodet-plus-m_416.param", metadata=facts, num_threads=1)
    raw = detector.raw(image)["output"][0]
    assert np.abs(raw - reference.raw[0]).max() < 1e-3
    assert len(detector(image)) == len(reference.detections[0])
