"""Features, detections, losses, gradients and assignments of the reference implementation."""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import pytest
import torch
from detectron2.modeling import Backbone
from detectron2.utils.events import EventStorage

from nanodet_d2.checkpoint import convert_reference_state_dict
from nanodet_d2.modeling import (
    GhostNet,
    GhostPAN,
    NanoDetPlus,
    NanoDetPlusHead,
    ShuffleNetV2,
    SimpleConvHead,
)
from nanodet_d2.modeling.head import GroundTruth
from nanodet_d2.modeling.head.box_coding import encode_distances
from tests.parity.golden import RELATIVE, GoldenCase

DETACH_ITER = 10


BACKBONES = {
    "plus_m": lambda: ShuffleNetV2("1.0x", activation="LeakyReLU"),
    "plus_m_crowded": lambda: ShuffleNetV2("1.0x", activation="LeakyReLU"),
    "plus_ghostnet": GhostNet,
}


@pytest.fixture(scope="module", params=BACKBONES)
def case(request) -> GoldenCase:
    return GoldenCase(request.param)


@pytest.fixture(scope="module")
def filled_model(case) -> NanoDetPlus:
    model = NanoDetPlus(
        backbone=BACKBONES[case.name](),
        neck=partial(GhostPAN, out_channels=96),
        head=partial(NanoDetPlusHead, num_classes=80),
        aux_head=partial(SimpleConvHead),
        aux_detach_iter=DETACH_ITER,
        pixel_mean=(0, 0, 0),  # golden inputs are normalised already
        pixel_std=(1, 1, 1),
    )
    model.load_state_dict(case.state_dict())
    return model


def test_parameter_counts(case, model):
    inference = [p.numel() for n, p in model.named_parameters() if not n.startswith("aux_")]
    assert sum(inference) == case.facts["inference_params"]
    assert sum(p.numel() for p in model.parameters()) == case.facts["training_params"]
    assert len(model.state_dict()) == len(case.facts["state_dict"])


def test_features_and_head(case, model):
    # The filled GhostNet's features grow to 6500 by sums that cancel: between two orders of float32
    # summation (threads, processors) they differ by up to 1.1e-4. In float64 no order shows.
    precision = torch.float64 if case.name == "plus_ghostnet" else torch.float32
    model.eval().to(precision)
    with torch.no_grad():
        features = model.backbone(case.images.to(precision))
        pyramid = model.neck(features)
        head = model.head(pyramid)
    for prefix, levels in (("backbone", features), ("fpn", pyramid)):
        for i, level in enumerate(levels.values()):
            case.assert_close(f"{prefix}.{i}", level[:1])
    case.assert_close("head", head)


def test_detections(case, model):
    model.eval()
    with torch.no_grad():
        results = model([{"image": image} for image in case.images])
    for i, result in enumerate(results):
        found = result["instances"]
        assert np.array_equal(found.pred_classes.numpy(), case.arrays[f"det.{i}.labels"])
        case.assert_close(f"det.{i}.boxes", found.pred_boxes.tensor)
        case.assert_close(f"det.{i}.scores", found.scores)


def test_training_outputs_and_assignment(case, model):
    model.train()
    inputs = case.inputs()
    with torch.no_grad():
        features = model.backbone(case.images)
        pyramid = model.neck(features)
        raw = model.head(pyramid)
        aux_raw = model.auxiliary_forward(features, pyramid)
    priors = model.head.priors(pyramid)
    case.assert_close("train.head", raw)
    case.assert_close("train.aux_head", aux_raw)
    assert np.array_equal(priors.numpy(), case.arrays["priors"])

    guide = model.head.decode(aux_raw, priors)
    truth = GroundTruth.from_instances([x["instances"] for x in inputs])
    target = model.head.assigner(guide.logits, guide.boxes, priors, truth)
    distances = encode_distances(priors, target.boxes, model.head.reg_max)
    for i in range(len(inputs)):
        golden = {k: case.arrays[f"assign.{i}.{k}"] for k in ("labels", "scores", "weights")}
        assert np.array_equal(target.labels[i].numpy(), golden["labels"])
        np.testing.assert_allclose(target.scores[i].numpy(), golden["scores"], atol=RELATIVE)
        assert np.array_equal(target.weights[i].numpy(), golden["weights"])
        positive = golden["labels"] < 80
        for mine, name in ((target.boxes, "boxes"), (distances, "dists")):
            theirs = case.arrays[f"assign.{i}.{name}"][positive]
            np.testing.assert_allclose(mine[i][positive].numpy(), theirs, rtol=RELATIVE, atol=1e-4)


MOMENTS = [("before_detach", 0), ("after_detach", DETACH_ITER)]


@pytest.mark.parametrize("moment, iteration", MOMENTS)
def test_losses(case, model, moment, iteration):
    golden = case.facts["train"][moment]["losses"]
    model.train()
    with EventStorage(iteration), torch.no_grad():
        losses = model(case.inputs())
    assert {k: float(v) for k, v in losses.items()} == pytest.approx(golden, rel=1e-5)


# Orders of float32 summation: by threads, and by whether oneDNN takes the convolutions. Which one
# agrees with the golden gradients depends on the processor: in another one, as in float64, up to 4
# activations fall on the other side of their ReLU's kink, which alone moves norms by up to 1.5 %.
ORDERS = [(1, True), (1, False), (2, True), (2, False)]


@pytest.mark.filterwarnings("ignore:TF32 acceleration")  # on Intel's GPUs; it is not asked for
@pytest.mark.parametrize("moment, iteration", MOMENTS)
def test_gradients(case, model, moment, iteration):
    expected = convert_reference_state_dict(case.facts["train"][moment]["grad_norm"])
    # The gradient of a bias before a norm is zero; what is there is the rounding of either side.
    expected = pytest.approx(expected, rel=1e-3, abs=1e-6)
    for order in ORDERS:
        norms = gradient_norms(copy.deepcopy(model), case.inputs(), iteration, *order)
        if norms == expected:
            return
    assert norms == expected


def gradient_norms(
    model: NanoDetPlus, inputs: list[dict], iteration: int, threads: int, onednn: bool
) -> dict[str, float]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with EventStorage(iteration), torch.backends.mkldnn.flags(enabled=onednn):
            sum(model.train()(inputs).values()).backward()
    finally:
        torch.set_num_threads(before)
    return {k: float(p.grad.norm()) for k, p in model.named_parameters()}


def assert_backbone(case: GoldenCase, backbone: Backbone) -> None:
    state = case.state_dict(prefix="backbone.")
    backbone.load_state_dict({k.removeprefix("backbone."): v for k, v in state.items()})
    assert sum(p.numel() for p in backbone.parameters()) == case.facts["params"]
    backbone.eval()
    with torch.no_grad():
        features = backbone(case.images)
    for i, feature in enumerate(features.values()):
        case.assert_close(f"out.{i}", feature)


@pytest.mark.parametrize("size", ["0.5x", "1.0x", "2.0x"])
def test_shufflenet(size):
    case = GoldenCase(f"backbone_shufflenetv2_{size}")
    activation = case.facts["config"].get("activation", "ReLU")
    assert_backbone(case, ShuffleNetV2(size, activation=activation))


def test_ghostnet():
    assert_backbone(GoldenCase("backbone_ghostnet_1.0x"), GhostNet())


def test_rounding_of_the_cases_loosens_nothing(case):
    """Wherever in its interval a rounded golden value was, what is 1e-4 off it fails."""
    step = float(case.arrays["head.step"])
    rounded = torch.from_numpy(case.arrays["head"] * step)
    tolerance = RELATIVE * float(rounded.abs().max())
    worst = torch.zeros_like(rounded)
    worst[0, -1, -1] = 1.001 * tolerance - step / 2
    case.assert_close("head", rounded + 0.8 * worst)
    for off in (worst, -worst):
        with pytest.raises(AssertionError, match="head is off by"):
            case.assert_close("head", rounded + off)
