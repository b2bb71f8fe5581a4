"""Fixtures shared by all tests."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from nanodet_d2.data.synthetic import make_shapes_dataset
from nanodet_d2.export import products
from nanodet_d2.modeling import (
    GhostPAN,
    NanoDetPlus,
    NanoDetPlusHead,
    ShuffleNetV2,
    SimpleConvHead,
)
from tests.small_models import OnnxNetworks, SmallModels
from tests.wheels import build_wheel

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of official weights and images beside the project."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("../shared (official weights, COCO images) is absent")
    return folder


@pytest.fixture
def build_model():
    """A small NanoDet-Plus on the CPU; keyword arguments go to ``NanoDetPlus``."""

    def build(num_classes: int = 3, **arguments) -> NanoDetPlus:
        torch.manual_seed(0)
        parts = dict(
            backbone=ShuffleNetV2("0.5x", activation="LeakyReLU"),
            neck=partial(GhostPAN, out_channels=32),
            head=partial(NanoDetPlusHead, num_classes=num_classes),
            aux_head=partial(SimpleConvHead, stacked_convs=1),
        )
        return NanoDetPlus(**{**parts, **arguments})

    return build


@pytest.fixture(scope="session")
def shapes(tmp_path_factory) -> dict[str, dict[str, str]]:
    """A drawn data set of 24 + 8 images of 96 px."""
    root = tmp_path_factory.mktemp("shapes")
    return make_shapes_dataset(root, num_train=24, num_val=8, image_size=96)


@pytest.fixture(scope="session")
def shapes_overrides(shapes) -> list[str]:
    """Config overrides that name the drawn data set."""
    return [f"data.{split}.{key}={path}" for split, x in shapes.items() for key, path in x.items()]


@pytest.fixture(scope="session")
def small_models(tmp_path_factory) -> Iterator[SmallModels]:
    """Small models with random weights, and files of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "network_to_onnx", OnnxNetworks())
        yield SmallModels(tmp_path_factory.mktemp("small_models"))


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Path:
    """The project's wheel."""
    return build_wheel(tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel"))
