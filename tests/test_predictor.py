"""The detector over configs, modules of PyTorch and exported files, and its score on a data set."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import nanodet_d2
from nanodet_d2 import cli, runtime
from nanodet_d2.data.shapes import CLASS_NAMES, draw_picture
from nanodet_d2.export.expected import Expected
from nanodet_d2.predictor import Detector
from nanodet_d2.runtime.backends.torchscript import torch_threads
from tests.small_models import CONFIGS, SMALL

SIZE = (96, 64)


@pytest.fixture(scope="module")
def checkpoint(small_models) -> str:
    """Of the config without overrides: with COCO's classes."""
    return small_models.recipe(names=tuple(map(str, range(80)))).checkpoint


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return draw_picture(0, "val", 0, 120)[0][:100]


def test_a_config_with_its_checkpoint(checkpoint, picture):
    detector = Detector(CONFIGS / SMALL, checkpoint, num_threads=1, input_size=SIZE)
    assert isinstance(detector, runtime.Detector) and nanodet_d2.Detector is Detector
    assert detector.backend == "pytorch" and len(detector.class_names) == 80
    assert len(detector([picture, picture])) == 2
    assert detector.raw(picture)["output"].shape[2] == 80 + 32


def test_a_loaded_model_finds_what_it_evaluates_to(small_models, picture):
    loaded = small_models.loaded()
    (expected,) = Expected(loaded.model, loaded.metadata, [picture]).detections
    found = Detector(loaded)(picture)
    assert found.class_names == CLASS_NAMES and len(found) == len(expected) > 0
    np.testing.assert_allclose(found.xyxy, expected.pred_boxes.tensor, atol=0.05)
    np.testing.assert_allclose(found.confidence, expected.scores, atol=1e-4)
    other = Detector(loaded, input_size=(160, 128), score_thresh=0.5)
    assert other.prepare([picture]).shape == (1, 3, 160, 128)
    assert all(score > 0.5 for score in other(picture).confidence)


def test_an_exported_file(small_models, picture):
    path = small_models.file("torchscript")
    detector = Detector(path)
    assert detector.backend == "torchscript" and detector.class_names == CLASS_NAMES
    expected = runtime.Detector(path)(picture)
    np.testing.assert_array_equal(detector(picture).xyxy, expected.xyxy)


def test_threads_are_restored(small_models, checkpoint, picture):
    before, seen = torch.get_num_threads(), []
    wanted = before + 1
    path = small_models.file("torchscript")
    for detector in (
        Detector(path, num_threads=wanted),
        Detector(CONFIGS / SMALL, checkpoint, num_threads=wanted, input_size=SIZE),
    ):
        name = "network" if detector.backend == "pytorch" else "module"
        network = getattr(detector._backend, name)

        def noting(data, network=network):
            seen.append(torch.get_num_threads())
            return network(data)

        setattr(detector._backend, name, noting)
        assert torch.get_num_threads() == before
        detector(picture)
        assert torch.get_num_threads() == before
    assert seen == [wanted, wanted]
    with pytest.raises(RuntimeError, match="inside"), torch_threads(wanted):
        raise RuntimeError("inside")
    assert torch.get_num_threads() == before
    for wrong in (0, -1):
        for source, weights in ((path, None), (CONFIGS / SMALL, checkpoint)):
            with pytest.raises(ValueError, match=f"num_threads {wrong}; allowed: 1 or more"):
                Detector(source, weights, num_threads=wrong)


def test_users_are_told_which_files_are_programs(capsys):
    """Checkpoints are safe to read; TorchScript files and configs are not."""
    assert "A config is a program" in " ".join(Detector.__doc__.split())
    for verb in ("predict", "eval"):
        assert cli.main([verb, "--help"]) == 0
        text = " ".join(capsys.readouterr().out.split())
        assert "Configs and TorchScript files are programs: run only those that you trust" in text


def test_what_is_refused(small_models):
    path = small_models.file("torchscript")
    with pytest.raises(ValueError, match="known names"):
        Detector("model.keras")
    with pytest.raises(ValueError, match="is a config and needs weights"):
        Detector(CONFIGS / SMALL)
    with pytest.raises(ValueError, match="has its own weights"):
        Detector(path, "model.pth")
    with pytest.raises(ValueError, match=r"input size \[100, 64\]; allowed: .*multiples of 32"):
        Detector(small_models.loaded(), input_size=(100, 64))


def test_evaluation_by_the_command(small_models, shapes, tmp_path):
    arguments = ["eval", str(small_models.file("torchscript")), "--data", shapes["val"]["json"]]
    arguments += ["--output", str(tmp_path)]
    assert cli.main([*arguments, "--images", shapes["val"]["images"]]) == 0
    metrics = json.loads((tmp_path / "evaluation.json").read_text())["bbox"]
    assert 0 <= metrics["AP"] < 50 and "AP-circle" in metrics
    assert cli.main([*arguments, "--images", str(tmp_path / "absent")]) == 2
