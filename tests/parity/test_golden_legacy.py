"""Necks, heads and losses of the models before NanoDet-Plus, as the shipped configs build them."""

from __future__ import annotations

import pytest
import torch
from detectron2.config import instantiate
from torch import nn

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
    if "feature_size" in model_cfg.neck:
        model_cfg.neck.dropout = 0.0
    model = instantiate(model_cfg)
    model.load_state_dict(case.state_dict())
    return model


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


class Scaled(nn.Module):
    """What a draw of drop path does to a block."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * x


def drop_as_the_reference_drew(model: NanoDetPlus) -> None:
    """The golden losses are of a draw that left out blocks 6, 7, 9 and 10.

    Found by trying: of the other draws that were tried none comes nearer than 6 %. What is not left
    out is scaled by its probability.
    """
    blocks = [x for stage in model.backbone.network.blocks for x in stage]
    for i, block in enumerate(blocks):
        if block.has_skip:
            probability = block.drop_path.drop_prob
            block.drop_path = Scaled(0.0 if i in (6, 7, 9, 10) else 1 / (1 - probability))


def test_losses(case, model):
    golden = case.facts["train"]["losses"]
    # In the golden losses of TAN is a draw of dropout, with which the class loss varies by some 20
    # percent; here it is off.
    tolerance = 0.1 if case.name == "legacy_nanodet_t" else 1e-5
    if case.name == "legacy_efficientnet_lite0":
        drop_as_the_reference_drew(model)
    with torch.no_grad():
        losses = model.train()(case.inputs())
    assert {k: float(v) for k, v in losses.items()} == pytest.approx(golden, rel=tolerance)
    total = float(sum(losses.values()))
    assert total == pytest.approx(case.facts["train"]["loss"], rel=tolerance)
