"""Features, detections, losses, gradients and assignments of the reference implementation."""

from __future__ import annotations

import importlib.util
import json
from functools import partial

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
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

RELATIVE = 1e-4
DETACH_ITER = 10


class GoldenCase:
    """A case of ``../shared/golden`` with the model it belongs to."""

    def __init__(self, folder, name: str):
        spec = importlib.util.spec_from_file_location("golden_fill", folder / "fill.py")
        self.fill = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.fill)
        self.name = name
        self.facts = json.loads((folder / f"{name}.json").read_text())
        self.arrays = np.load(folder / f"{name}.npz")
        self.images = torch.from_numpy(self.fill.image(name, self.facts["input"]))

    def state_dict(self, prefix: str = "") -> dict[str, torch.Tensor]:
        filled = self.fill.state_dict(self.facts["state_dict"])
        return convert_reference_state_dict(
            {prefix + k: torch.from_numpy(np.asarray(v)) for k, v in filled.items()}
        )

    def inputs(self) -> list[dict]:
        height, width = self.facts["input"][2:]
        batch = []
        for i, image in enumerate(self.images):
            boxes, classes = self.fill.boxes(
                f"{self.name}:{i}", self.facts["ngts"][i], height, width
            )
            instances = Instances((height, width))
            instances.gt_boxes = Boxes(torch.from_numpy(boxes))
            instances.gt_classes = torch.from_numpy(classes)
            batch.append({"image": image, "instances": instances})
        return batch


def assert_close(actual: torch.Tensor, golden: np.ndarray) -> None:
    """Within 1e-4 of the golden array's largest value; some cases hold every 4th channel."""
    actual = actual.detach().numpy()
    if actual.shape != golden.shape:
        actual = actual[:, ::4]
    assert actual.shape == golden.shape
    assert np.abs(actual - golden).max() <= RELATIVE * np.abs(golden).max()


BACKBONES = {
    "plus_m": lambda: ShuffleNetV2("1.0x", activation="LeakyReLU"),
    "plus_m_crowded": lambda: ShuffleNetV2("1.0x", activation="LeakyReLU"),
    "plus_ghostnet": GhostNet,
}


@pytest.fixture(scope="module", params=BACKBONES)
def case(request, shared) -> GoldenCase:
    return GoldenCase(shared / "golden", request.param)


@pytest.fixture
def model(case) -> NanoDetPlus:
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
    model.eval()
    features = model.backbone(case.images)
    pyramid = model.neck(features)
    for prefix, levels in (("backbone", features), ("fpn", pyramid)):
        for i, level in enumerate(levels.values()):
            assert_close(level[:1], case.arrays[f"{prefix}.{i}"])
    assert_close(model.head(pyramid), case.arrays["head"])


def test_detections(case, model):
    model.eval()
    with torch.no_grad():
        results = model([{"image": image} for image in case.images])
    for i, result in enumerate(results):
        found = result["instances"]
        golden = case.arrays[f"det.{i}.boxes"]
        assert np.array_equal(found.pred_classes.numpy(), case.arrays[f"det.{i}.labels"])
        assert_close(found.pred_boxes.tensor, golden[:, :4])
        assert_close(found.scores, golden[:, 4])


def test_training_outputs_and_assignment(case, model):
    model.train()
    inputs = case.inputs()
    features = model.backbone(case.images)
    pyramid = model.neck(features)
    raw = model.head(pyramid)
    aux_raw = model.auxiliary_forward(features, pyramid)
    priors = model.head.priors(pyramid)
    assert_close(raw, case.arrays["train.head"])
    assert_close(aux_raw, case.arrays["train.aux_head"])
    assert np.array_equal(priors.numpy(), case.arrays["priors"][:, :3])

    guide = model.head.decode(aux_raw, priors).detach()
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


@pytest.fixture
def one_thread():
    """The golden gradients' order of summation; another one moves tiny norms by up to 0.4 %."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("moment, iteration", [("before_detach", 0), ("after_detach", DETACH_ITER)])
def test_losses_and_gradients(case, model, moment, iteration):
    golden = case.facts["train"][moment]
    model.train()
    with EventStorage(iteration):
        losses = model(case.inputs())
    assert {k: float(v) for k, v in losses.items()} == pytest.approx(golden["losses"], rel=1e-5)

    sum(losses.values()).backward()
    norms = {k: float(p.grad.norm()) for k, p in model.named_parameters()}
    expected = convert_reference_state_dict(golden["grad_norm"])
    # The gradient of a bias before a norm is zero; what is there is the rounding of either side.
    assert norms == pytest.approx(expected, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("size", ["0.5x", "1.0x", "2.0x"])
def test_shufflenet(shared, size):
    case = GoldenCase(shared / "golden", f"backbone_shufflenetv2_{size}")
    state = case.state_dict(prefix="backbone.")
    backbone = ShuffleNetV2(size, activation=case.facts["config"].get("activation", "ReLU"))
    backbone.load_state_dict({k.removeprefix("backbone."): v for k, v in state.items()})
    backbone.eval()
    for i, feature in enumerate(backbone(case.images).values()):
        assert_close(feature, case.arrays[f"out.{i}"])


def test_ghostnet(shared):
    case = GoldenCase(shared / "golden", "backbone_ghostnet_1.0x")
    state = case.state_dict(prefix="backbone.")
    backbone = GhostNet()
    backbone.load_state_dict({k.removeprefix("backbone."): v for k, v in state.items()})
    backbone.eval()
    for i, feature in enumerate(backbone(case.images).values()):
        assert_close(feature, case.arrays[f"out.{i}"])
