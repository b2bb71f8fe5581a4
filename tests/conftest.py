"""Fixtures shared by all tests."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from detectron2.utils.logger import setup_logger

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
SHARED = ROOT.parent / "shared"


def pytest_collection_finish() -> None:
    """What was imported stays: else each full garbage collection goes through half a million."""
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not SHARED.is_dir():
        terminalreporter.write_line(
            f"left out: tests of official weights and real images, as {SHARED} is absent"
        )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out, as the summary says, what needs the official files where they are absent."""
    if SHARED.is_dir():
        return
    needing = [x for x in items if "shared" in getattr(x, "fixturenames", ())]
    config.hook.pytest_deselected(items=needing)
    items[:] = [x for x in items if x not in needing]


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Take back detectron2's set-up of logging, which writes to the streams of its test."""
    loggers = [logging.getLogger(name) for name in ("detectron2", "fvcore", "nanodet_d2")]
    before = [(x.handlers[:], x.level, x.propagate) for x in loggers]
    yield
    for logger, (handlers, level, propagate) in zip(loggers, before):
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = propagate
    setup_logger.cache_clear()


@pytest.fixture
def pictures() -> None:
    """Asked for by tests that look at what a training, an evaluation or the doctor draws."""


@pytest.fixture(autouse=True)
def no_pictures(request, monkeypatch) -> None:
    """Elsewhere nothing is drawn, which would take longer than all the steps of a training."""
    if "pictures" in request.fixturenames:
        return
    for name in (
        "engine.hooks.draw_curves",
        "engine.evaluator.write_evaluation_report",
        "doctor.command.draw_split",
    ):
        monkeypatch.setattr(f"nanodet_d2.{name}", lambda *_: None)


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of official weights and images beside the project."""
    return SHARED


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
