"""Models that no golden case holds: RepVGG-A0, and other widths of backbone, neck and head."""

from __future__ import annotations

import math

import pytest
import torch
from detectron2.config import instantiate
from torch import Tensor
from torch.nn import functional as F

from nanodet_d2 import zoo
from nanodet_d2.checkpoint import convert_reference_state_dict
from nanodet_d2.modeling import NanoDetPlus
from tests.parity import generated, reference_names
from tests.parity.golden import GoldenCase

SHUFFLENETS = {"0.5x": (48, 96, 192), "1.0x": (116, 232, 464), "1.5x": (176, 352, 704)}
REPVGG_DEPTHS, REPVGG_WIDTHS = (2, 4, 14, 1), (48, 48, 96, 192, 512)


def shufflenet_model(size: str, width: int) -> reference_names.Shapes:
    widths = SHUFFLENETS[size]
    neck = reference_names.pan(widths, width)
    head = reference_names.head(width, reg_max=7, depthwise=True)
    return {**reference_names.shufflenet(widths), **neck, **head}


def repvgg_model(conv: str, bn: str) -> reference_names.Shapes:
    names = reference_names.repvgg(REPVGG_DEPTHS, REPVGG_WIDTHS, conv=conv, bn=bn)
    neck = reference_names.pan(REPVGG_WIDTHS[2:], 128)
    return {**names, **neck, **reference_names.head(128, reg_max=10, depthwise=False)}


# Model of the zoo, weights of the reference's, and how many parameters the reference counts.
CASES = {
    "m-0.5x": ("nanodet-m-0.5x-320", shufflenet_model("0.5x", 96), 280_368),
    "m-1.5x": ("nanodet-m-1.5x-320", shufflenet_model("1.5x", 128), 2_077_776),
    "repvgg": ("nanodet-repvgg-a0-416", repvgg_model("0", "1"), 7_404_408),
    "repvgg, branches by name": ("nanodet-repvgg-a0-416", repvgg_model("conv", "bn"), 7_404_408),
}


def load(name: str, shapes: reference_names.Shapes) -> tuple[NanoDetPlus, dict[str, Tensor]]:
    """A model of the zoo with generated weights, and these by the reference's names."""
    state = generated.state_dict(shapes)
    model = instantiate(zoo.get_config(name).model).eval()
    missing, unexpected = model.load_state_dict(convert_reference_state_dict(state), strict=False)
    assert not missing and not unexpected
    return model, state


def test_names_are_those_of_the_golden_case():
    golden = GoldenCase("legacy_nanodet_m").facts["state_dict"]
    assert {k: tuple(v) for k, v in golden.items()} == shufflenet_model("1.0x", 96)


@pytest.mark.parametrize("case", CASES)
def test_all_weights_find_their_place_and_fuse(case):
    name, shapes, parameters = CASES[case]
    buffers = ("running_mean", "running_var", "num_batches_tracked", "project")
    assert sum(math.prod(x) for k, x in shapes.items() if not k.endswith(buffers)) == parameters
    model, _ = load(name, shapes)
    images = generated.images(case, (2, 3, 96, 128))
    with torch.no_grad():
        before = model.head(model.neck(model.backbone(images)))
        model.fuse()
        after = model.head(model.neck(model.backbone(images)))
    assert float((after - before).abs().max()) < 1e-4 * float(before.abs().max())
    assert not any(isinstance(x, torch.nn.BatchNorm2d) for x in model.modules())


def repvgg_block(state: dict[str, Tensor], name: str, x: Tensor, stride: int) -> Tensor:
    """ReLU of the sum of the normalised 3 x 3, 1 x 1 and, where there is one, plain branches."""

    def normed(branch: str, y: Tensor) -> Tensor:
        mean, variance, weight, bias = (
            state[f"{name}.{branch}.{entry}"]
            for entry in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(y, mean, variance, weight, bias, eps=1e-5)

    dense = F.conv2d(x, state[f"{name}.rbr_dense.0.weight"], stride=stride, padding=1)
    point = F.conv2d(x, state[f"{name}.rbr_1x1.0.weight"], stride=stride)
    total = normed("rbr_dense.1", dense) + normed("rbr_1x1.1", point)
    if f"{name}.rbr_identity.weight" in state:
        total = total + normed("rbr_identity", x)
    return F.relu(total)


def test_repvgg_computes_its_formulas():
    name, shapes, _ = CASES["repvgg"]
    model, state = load(name, shapes)
    images = generated.images("repvgg", (1, 3, 64, 96))
    with torch.no_grad():
        found = model.backbone(images)
        x, features = repvgg_block(state, "backbone.stage0", images, 2), []
        for stage, depth in enumerate(REPVGG_DEPTHS, start=1):
            for i in range(depth):
                x = repvgg_block(state, f"backbone.stage{stage}.{i}", x, 1 if i else 2)
            features.append(x)
    assert [tuple(x.shape[1:]) for x in found.values()] == [(96, 8, 12), (192, 4, 6), (512, 2, 3)]
    for level, expected in zip(found.values(), features[1:]):
        assert float((level - expected).abs().max()) < 1e-4 * float(expected.abs().max())
