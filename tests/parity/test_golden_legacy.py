"""Necks, heads and losses of the models before NanoDet-Plus, as the shipped configs build them."""

from __future__ import annotations

import copy

import pytest
import torch
from detectron2.config import instantiate

from nanodet_d2 import zoo
from nanodet_d2.modeling import NanoDetPlus
from tests.parity.golden import GoldenCase

MODELS = {
    "legacy_nanodet_m": "nanodet-m-320",
    "legacy_nanodet_g": "nanodet-g-416",
    "legacy_nanodet_t": "nanodet-t-320",
    "legacy_efficientnet_lite0": "nanodet-efficientnet-lite0-320",
}
# In the reference's model, and used by nothing: the boxes' convolutions beside the shared ones (3
# levels of 4 (R + 1) rows), and in TAN a linear layer.
IDLE = ("head.gfl_reg.", "fpn.transformer.linear.")


@pytest.fixture(scope="module", params=MODELS)
def case(request) -> GoldenCase:
    return GoldenCase(request.param)


@pytest.fixture(scope="module")
def filled_model(case) -> NanoDetPlus:
    model_cfg = zoo.get_config(MODELS[case.name]).model
    model_cfg.pixel_mean, model_cfg.pixel_std = (0, 0, 0), (1, 1, 1)  # inputs are normalised
    if "drop_path_rate" in model_cfg.backbone:
        model_cfg.backbone.drop_path_rate = 0.0
    if "feature_size" in model_cfg.neck:
        model_cfg.neck.dropout = 0.0
    model = instantiate(model_cfg)
    model.load_state_dict(case.state_dict())
    return model


@pytest.fixture
def model(filled_model) -> NanoDetPlus:
    """A copy, since training changes the norms' statistics."""
    return copy.deepcopy(filled_model)


def test_parameter_counts(case, model):
    entry = zoo.entry(MODELS[case.name])
    assert sum(p.numel() for p in model.parameters()) == entry.parameters
    shapes = case.facts["state_dict"]
    idle = sum(torch.Size(shape).numel() for name, shape in shapes.items() if name.startswith(IDLE))
    assert case.facts["inference_params"] == entry.parameters + idle
    assert len(model.state_dict()) == sum(not name.startswith(IDLE) for name in shapes)


def test_features_and_head(case, model):
    model.eval()
    with torch.no_grad():
        pyramid = model.neck(model.backbone(case.images))
        head = model.head(pyramid)
    for i, level in enumerate(pyramid.values()):
        case.assert_close(f"fpn.{i}", level)
    case.assert_close("head", head)


def test_losses(case, model):
    golden = case.facts["train"]["losses"]
    with torch.no_grad():
        losses = model.train()(case.inputs())
    assert {k: float(v) for k, v in losses.items()} == pytest.approx(golden, rel=1e-5)
    assert float(sum(losses.values())) == pytest.approx(case.facts["train"]["loss"], rel=1e-5)
