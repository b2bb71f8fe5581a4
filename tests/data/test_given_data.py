"""``--data`` of a folder: the pictures and boxes of a split, whatever its layout."""

from __future__ import annotations

import argparse
import json

import pytest

from nanodet_d2.cli.data_set import add_data, data_of
from tests.data.layouts import WITH_SPLITS, coco_single
from tests.data.one_set import as_truth, assert_is, truth

pytestmark = pytest.mark.usefixtures("catalog_as_before")


def read(*arguments: str) -> dict:
    """What is measured with, as :func:`truth` tells it."""
    parser = argparse.ArgumentParser()
    add_data(parser)
    found = data_of(parser.parse_args(arguments))
    assert found is not None
    return as_truth(json.loads(found[0].read_text()), found[1])


@pytest.mark.parametrize("write", WITH_SPLITS, ids=lambda x: x.__name__)
def test_a_folder_is_its_validation_split_or_another(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = str(write(tmp_path / "my_data"))
    assert_is(read("--data", source), truth("val"))
    assert_is(read("--data", source, "--split", "test"), truth("test"))


def test_a_folder_without_splits_is_divided_as_for_a_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = str(coco_single(tmp_path / "my_data"))
    found = read("--data", source)
    assert found == read("--data", source) and 0 < len(found) < len(truth()) / 2
    assert_is(found, {name: truth()[name] for name in found})


def test_nothing_given_is_nothing():
    parser = argparse.ArgumentParser()
    add_data(parser)
    assert data_of(parser.parse_args([])) is None
