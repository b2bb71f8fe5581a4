"""What the verification of exported files finds, and with what it looks."""

from __future__ import annotations

import copy
import dataclasses
import logging
import types
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.structures import Instances

from nanodet_d2.export import running, writer
from nanodet_d2.export.expected import Expected
from nanodet_d2.export.loading import LoadedModel
from nanodet_d2.export.network import RawNetwork
from nanodet_d2.export.pictures import batch_of, drawn_images, other_size, verification_images
from nanodet_d2.export.running import Mismatch, run_beside
from nanodet_d2.export.verify import FP32, verify
from nanodet_d2.export.verify_int8 import clear_score, verify_int8
from nanodet_d2.export.writer import export, summary
from nanodet_d2.runtime.backends import Backend
from nanodet_d2.runtime.images import MAX_PIXELS

CLASSES = 7  # of the small model


def with_threshold(loaded, score):
    """The same model, finding what has a higher score."""
    model = copy.deepcopy(loaded.model)
    model.select = {**model.select, "score_thresh": score}
    return LoadedModel(model, dataclasses.replace(loaded.metadata, score_threshold=score))


class Engine(Backend):
    """Runs a network of PyTorch as if it were a file's engine."""

    name = "engine"

    def __init__(self, network):
        self.network = network.eval()

    def __call__(self, data):
        with torch.inference_mode():
            return [self.network(torch.from_numpy(data)).numpy()]


@pytest.fixture
def run_as(monkeypatch):
    """Lets a network stand for an exported file, whose path it returns."""

    def use(network, loaded, *, dynamic=False):
        described = dataclasses.replace(loaded.metadata.input, dynamic=dynamic)
        metadata = dataclasses.replace(loaded.metadata, input=described)

        class InMemory(running.Detector):
            def __init__(self, path, *, input_size, score_thresh):
                parts = (Engine(network), metadata, str(path))
                self._use(*parts, score_thresh, input_size, MAX_PIXELS, None)

        monkeypatch.setattr(running, "Detector", InMemory)
        return Path("in memory")

    return use


# -- pictures ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(96, 64), (64, 64), (320, 416)])
def test_drawn_pictures_are_wider_and_taller_than_square(size):
    images = drawn_images(*size)
    ratios = [x.shape[1] / x.shape[0] for x in images]
    assert min(ratios) < 0.8 and max(ratios) > 1.2 and 1.0 not in ratios
    assert all(max(x.shape[:2]) >= max(size) for x in images)
    assert all(x.flags.c_contiguous and x.dtype == np.uint8 for x in images)


def test_int8_is_verified_with_pictures_to_calibrate_with_unless_others_are_given(
    make_job, tmp_path
):
    paths = [tmp_path / f"{i}.png" for i in range(20)]
    for i, path in enumerate(paths):
        cv2.imwrite(str(path), np.full((8, 9, 3), i, np.uint8))
    loaded, job = make_job()
    int8 = dataclasses.replace(job, int8=True)
    found = verification_images(int8, loaded.metadata.input, paths)
    assert [x[0, 0, 0] for x in found] == [0, 2, 5, 7, 10, 12, 15, 17]
    given = dataclasses.replace(int8, images=(paths[3],))
    (image,) = verification_images(given, loaded.metadata.input, paths)
    assert image[0, 0, 0] == 3


# -- batches and other sizes of a dynamic file -------------------------------------------------


def test_another_size_and_a_batch():
    described = types.SimpleNamespace(size_divisor=64, height=416, width=416)
    assert other_size(described) == (480, 352)
    described.width = 64
    assert other_size(described) == (480, 192)
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert len(batch_of([image] * 4)) == 2
    once, mirrored = batch_of([image])
    assert (mirrored == once[:, ::-1]).all()


class MixesUpTheBatch(RawNetwork):
    def forward(self, data):
        return super().forward(data)[:1].expand(len(data), -1, -1)


class KnowsOneHeight(RawNetwork):
    def forward(self, data):
        return super().forward(data) + 0.01 * (data.shape[2] - 96)


@pytest.mark.parametrize(
    "network, where",
    [(MixesUpTheBatch, "image 1 at 128 x 32"), (KnowsOneHeight, "image 0 at 128 x 32")],
)
def test_a_dynamic_file_that_is_right_for_one_image_of_one_size(make_job, run_as, network, where):
    loaded, job = make_job(dynamic=True)
    file = run_as(network(loaded.model), loaded, dynamic=True)
    alone, together = writer.references_for(loaded, job, [])
    verify(file, [alone], FP32)
    with pytest.raises(Mismatch, match=f"'output: class scores' of {where} differs"):
        verify(file, [alone, together], FP32)


def test_a_good_dynamic_file(make_job, run_as):
    loaded, job = make_job(dynamic=True)
    file = run_as(RawNetwork(loaded.model), loaded, dynamic=True)
    references = writer.references_for(loaded, job, [])
    (found,) = [x for x in verify(file, references, FP32) if x.output == "detections"]
    counted = [len(x) for reference in references for x in reference.detections]
    assert found.value == 0 and 10 < found.compared <= sum(counted)


# -- where there is next to nothing to find ----------------------------------------------------


def test_with_few_detections_the_threshold_is_lowered(make_job, run_as):
    loaded, _ = make_job()
    loaded = with_threshold(loaded, 0.9)
    reference = Expected(loaded.model, loaded.metadata, drawn_images(96, 64))
    assert sum(map(len, reference.detections)) < 10
    assert 0.01 < reference.score_threshold < 0.9
    differences = verify(run_as(RawNetwork(loaded.model), loaded), [reference], FP32)
    (found,) = [x for x in differences if x.output == "detections"]
    assert found.value == 0 and found.compared > 40
    assert writer.in_words(differences).endswith(f", 0 of {found.compared} detections differ")


def test_with_enough_detections_it_is_the_models(make_job):
    loaded, _ = make_job()
    reference = Expected(loaded.model, loaded.metadata, drawn_images(96, 64))
    assert sum(map(len, reference.detections)) >= 10
    assert reference.score_threshold == loaded.metadata.score_threshold == 0.05


def test_nothing_to_compare_is_said(make_job, caplog):
    """A model whose scores are all the same detects nothing that could be told apart."""
    loaded, job = make_job()
    model = copy.deepcopy(loaded.model)
    with torch.no_grad():
        for predictor in model.head.predictors:
            for parameter in predictor.parameters():
                parameter.zero_()
    with caplog.at_level(logging.WARNING, logger="nanodet_d2"):
        (written,) = export(LoadedModel(model, loaded.metadata), job)
    assert "no detections were compared; give pictures" in caplog.text
    assert "no detections to compare" in summary([written])


# -- INT8 --------------------------------------------------------------------------------------


class Changed(RawNetwork):
    """A network whose class scores are changed, as one that was quantised badly."""

    def __init__(self, model, change):
        super().__init__(model)
        self.change = change

    def forward(self, data):
        raw = super().forward(data)
        return torch.cat([self.change(raw[..., :CLASSES]), raw[..., CLASSES:]], dim=-1)


@pytest.fixture
def quantised(make_job, run_as):
    """Verifies, as an INT8 file, the small model with its scores changed."""
    loaded, _ = make_job()
    reference = Expected(loaded.model, loaded.metadata, drawn_images(96, 64))

    def verify(change):
        return verify_int8(run_as(Changed(loaded.model, change), loaded), [reference])

    return verify


def test_a_good_int8_file(quantised):
    lost, added = quantised(lambda scores: scores + 0.001)
    assert lost.value == added.value == 0
    assert lost.compared == added.compared >= 10 and lost.allowed == lost.compared / 4


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda scores: scores * float("nan"), "output 'output' of image 0 is not finite"),
        (lambda scores: 0 * scores, "clear detections lost of"),
        (lambda scores: scores.roll(1, dims=-1), "clear detections lost of"),
        (lambda scores: 0.9 + 0.1 * scores, "clear detections added of"),
    ],
    ids=["NaN", "nothing", "other classes", "too much"],
)
def test_a_bad_int8_file(quantised, change, words):
    with pytest.raises(Mismatch, match=words):
        quantised(change)


def instances(scores):
    found = Instances((10, 10))
    found.scores = torch.tensor(scores)
    return types.SimpleNamespace(detections=[found[:3], found[3:]], images=[None, None])


def test_what_is_clear_to_see():
    assert clear_score(instances([0.9] * 8 + [0.5] * 8)) == 0.4
    weak = instances([0.3 - 0.01 * i for i in range(20)])
    assert clear_score(weak) == pytest.approx(0.3 - 0.01 * 9)  # of the tenth
    with pytest.raises(ValueError, match="9 detections in the 2 pictures .*10 or more.*--images"):
        clear_score(instances([0.9] * 9))


def test_int8_with_pictures_of_nothing_is_refused_before_anything_is_written(make_job, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    cv2.imwrite(str(folder / "gray.png"), np.full((64, 64, 3), 128, np.uint8))
    loaded, job = make_job(formats=["openvino"], int8=True, calibration=folder)
    with pytest.raises(ValueError, match="has 0 detections in the 1 pictures that INT8 would be"):
        export(with_threshold(loaded, 0.99), job)
    assert not job.output.exists()


# -- running -----------------------------------------------------------------------------------


def test_images_go_in_one_by_one_and_as_a_batch(make_job, run_as):
    loaded, _ = make_job()
    path = run_as(RawNetwork(loaded.model), loaded, dynamic=True)
    other = dataclasses.replace(loaded.metadata.input, height=64, width=128)
    references = [
        Expected(loaded.model, loaded.metadata, drawn_images(96, 64)[:3]),
        Expected(
            loaded.model,
            dataclasses.replace(loaded.metadata, input=other),
            drawn_images(96, 64)[:2],
        ),
    ]
    ran = list(run_beside(path, references))
    places = ["image 0", "image 1", "image 2", "image 0 at 64 x 128", "image 1 at 64 x 128"]
    assert [x.where for x in ran] == places
    for x in ran:
        raw = x.reference.raw[x.index]
        np.testing.assert_allclose(x.outputs["output"], raw[None], atol=1e-3)
        assert len(x.found) == len(x.reference.detections[x.index]) > 0
