"""``nanodet-d2 convert``: a file of the reference becomes one that knows what it is."""

from __future__ import annotations

import json

import pytest
import torch

from nanodet_d2 import cli
from nanodet_d2.checkpoint.convert import convert_to_reference


@pytest.fixture
def recipe(small_models):
    return small_models.recipe()


@pytest.fixture
def reference_file(recipe, tmp_path) -> str:
    path = tmp_path / "theirs.ckpt"
    convert_to_reference(recipe.checkpoint, path)
    return str(path)


def test_with_a_config_the_file_needs_nothing_else(recipe, reference_file, tmp_path, capsys):
    ours = str(tmp_path / "ours.pth")
    arguments = ["convert", reference_file, "--config", recipe.config, "--output", ours]
    assert cli.main([*arguments, *recipe.overrides]) == 0
    capsys.readouterr()
    assert cli.main(["info", ours, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["class_names"] == list(recipe.load().metadata.class_names)


def test_a_config_of_another_model_is_refused(recipe, reference_file, tmp_path, capsys):
    ours = tmp_path / "ours.pth"
    arguments = ["convert", reference_file, "--config", "nanodet-plus-m-416"]
    assert cli.main([*arguments, "--output", str(ours)]) == 2
    assert "does not fit this model" in capsys.readouterr().err and not ours.exists()


def test_a_file_of_the_reference_tells_nothing(recipe, tmp_path, capsys):
    arguments = ["convert", recipe.checkpoint, "--to", "reference", "--config", recipe.config]
    assert cli.main([*arguments, "--output", str(tmp_path / "theirs.ckpt")]) == 2
    assert "--config with --to reference" in capsys.readouterr().err
    assert torch.load(recipe.checkpoint, weights_only=True).keys() == {"model"}
