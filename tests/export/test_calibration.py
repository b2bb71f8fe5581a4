"""Pictures to calibrate INT8 with."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import cv2
import numpy as np
import pytest

from nanodet_d2.cli.verbs import export as verb
from nanodet_d2.export import calibration
from nanodet_d2.export.calibration import calibration_pictures, spread
from nanodet_d2.export.job import Job
from nanodet_d2.export.products import Products
from nanodet_d2.export.writer import export
from nanodet_d2.runtime.preprocess import normalize, stretch


@pytest.fixture
def folder(tmp_path):
    """Ten pictures of one grey level each, 0 to 9."""
    for i in range(10):
        (tmp_path / "pictures").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / f"pictures/{i}.png"), np.full((20, 30, 3), i, np.uint8))
    return tmp_path / "pictures"


@pytest.mark.parametrize(
    "total, count, expected",
    [(10, 3, [0, 3, 6]), (10, 10, range(10)), (3, 5, [0, 1, 2]), (1, 1, [0]), (7, 2, [0, 3])],
)
def test_they_are_spread_over_all(total, count, expected):
    assert spread([Path(str(i)) for i in range(total)], count) == [Path(str(i)) for i in expected]


def test_the_log_says_how_many_of_how_many(folder, caplog):
    with caplog.at_level(logging.INFO, logger="nanodet_d2"):
        found = calibration_pictures(folder, 4)
    assert [x.name for x in found] == ["0.png", "2.png", "5.png", "7.png"]
    assert f"calibrating on 4 of the 10 pictures in {folder}" in caplog.text


def test_a_picture_is_read_when_it_is_asked_for(make_job, folder, monkeypatch):
    loaded, job = make_job()
    read = []
    load = calibration.load_image
    monkeypatch.setattr(calibration, "load_image", lambda path: read.append(path) or load(path))
    paths = sorted(folder.iterdir())
    samples = Products(loaded.model, loaded.metadata, job, paths).samples()
    assert len(samples) == 10 and read == []
    x = loaded.metadata.input
    expected = normalize(stretch(load(paths[3]), x.height, x.width), x)[None]
    np.testing.assert_array_equal(samples[3], expected)
    np.testing.assert_array_equal(samples[2:5][1], expected)
    assert read == [paths[3]] * 2
    for again in (1, 2):  # quantisers go through them several times, and hold none
        assert sum(1 for _ in samples) == 10 and len(read) == 2 + 10 * again


def test_an_export_calibrates_on_as_many_as_asked(make_job, folder, monkeypatch, caplog):
    loaded, job = make_job(
        formats=["onnx"], int8=True, calibration=folder, calibration_count=3, verify=False
    )
    seen = []
    monkeypatch.setattr(Products, "write", lambda self, *_: seen.append(self.samples()) or stop())

    def stop():
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        export(loaded, job)
    assert [x.name for x in seen[0].paths] == ["0.png", "3.png", "6.png"]


def test_what_is_refused(make_job, folder):
    loaded, job = make_job(formats=["onnx"], int8=True, calibration=folder, calibration_count=0)
    with pytest.raises(ValueError, match="--calibration-count 0; allowed: 1 or more"):
        export(loaded, job)


def test_the_command_has_the_same_default():
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    assert parser.parse_args(["x"]).calibration_count == Job((), Path()).calibration_count
