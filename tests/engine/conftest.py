"""Fixtures of the engine's tests."""

from __future__ import annotations

import functools

import pytest
from detectron2.config import LazyConfig

from nanodet_d2.config import apply_overrides
from tests.engine.small_training import FAST


@pytest.fixture(scope="session")
def load_config(root, shapes_overrides):
    """The demo config with a few fast steps and more overrides."""

    def load(*overrides: str):
        path = root / "projects" / "nanodet_plus" / "configs" / "demo_shapes.py"
        return apply_overrides(LazyConfig.load(str(path)), [*FAST, *shapes_overrides, *overrides])

    return load


@pytest.fixture
def config(load_config, tmp_path):
    """The same, with its output below tmp_path."""
    return functools.partial(load_config, f"train.output_dir={tmp_path / 'out'}")
