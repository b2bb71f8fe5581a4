"""Folding batch norms into convolutions changes nothing but the speed."""

from __future__ import annotations

import logging

import pytest
import timm
import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d, NaiveSyncBatchNorm
from detectron2.modeling.backbone import BasicStem, ResNet
from torch import nn
from torch.nn import functional as F
from torchvision.ops import Conv2dNormActivation

from nanodet_d2.layers import conv_norm_act, fuse_conv_norm
from nanodet_d2.modeling import (
    CustomCSPNet,
    GhostNet,
    ShuffleNetV2,
    TimmBackbone,
    TorchvisionBackbone,
)
from nanodet_d2.modeling.backbone import make_repvgg_blocks

NORMS = (nn.BatchNorm2d, FrozenBatchNorm2d)


def detectron2_resnet() -> ResNet:
    return ResNet(
        BasicStem(3, 64, "FrozenBN"),
        ResNet.make_default_stages(18, norm="BN"),
        out_features=["res3", "res4", "res5"],
    )


# The backbone, and how many norms may be left: those that no convolution goes before alone.
BACKBONES = {
    "shufflenet": (lambda: ShuffleNetV2("0.5x"), 0),
    "ghostnet": (GhostNet, 0),
    "resnet": (detectron2_resnet, 0),
    "timm mobilenet": (lambda: TimmBackbone("mobilenetv3_small_050"), 0),
    "timm resnet": (lambda: TimmBackbone("resnet18"), 0),
    "timm, same padding": (lambda: TimmBackbone("tf_mobilenetv3_small_minimal_100"), 0),
    "torchvision mobilenet": (lambda: TorchvisionBackbone("mobilenet_v3_small"), 0),
    "torchvision shufflenet": (lambda: TorchvisionBackbone("shufflenet_v2_x0_5"), 0),
    "torchvision densenet": (lambda: TorchvisionBackbone("densenet121"), 62),
    "timm vit": (lambda: TimmBackbone("vit_tiny_patch16_224"), 0),
    "timm repvgg": (lambda: repvgg(), 0),
    "csp": (lambda: CustomCSPNet(SMALL_CSP, out_stages=(1, 2, 3)), 0),
}
SMALL_CSP = (("Conv", 3, 8, 3, 4), *(("CspBlock", 2**i, 1, 3, 2) for i in (3, 4, 5)))


def repvgg() -> TimmBackbone:
    blocks = make_repvgg_blocks(depths=(1, 2, 2, 1), multipliers=(0.25,) * 4, last_channels=48)
    return TimmBackbone("repvgg_a0", blocks=blocks)


def randomize_norms(model: nn.Module) -> None:
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, NORMS):
            for x in filter(torch.is_tensor, (module.weight, module.running_var)):
                nn.init.uniform_(x.data, 0.5, 1.5)
            for x in filter(torch.is_tensor, (module.bias, module.running_mean)):
                nn.init.normal_(x.data, std=0.2)


def count_norms(model: nn.Module) -> int:
    return sum(isinstance(x, NORMS) for x in model.modules())


@pytest.mark.parametrize("name", BACKBONES)
def test_detections_stay_the_same(build_model, name):
    build, left = BACKBONES[name]
    model = build_model(backbone=build(), score_thresh=0.0).eval()
    randomize_norms(model)
    image = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        before = model.head(model.neck(model.backbone(image)))
        assert model.fuse() is model
        after = model.head(model.neck(model.backbone(image)))
        torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4 * float(before.abs().max()))
        assert count_norms(model) == left

        state = {k: v.clone() for k, v in model.state_dict().items()}
        model.fuse()
        assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
        assert len(model([{"image": image[0]}])[0]["instances"]) > 0


def test_repvgg_becomes_plain_convolutions(build_model):
    model = build_model(backbone=repvgg()).eval()
    before = sum(isinstance(x, nn.Conv2d) for x in model.backbone.modules())
    model.fuse()
    convs = [x for x in model.backbone.modules() if isinstance(x, nn.Conv2d)]
    assert (before, len(convs)) == (2 * 7, 7)  # of the stem and 1 + 2 + 2 + 1 blocks
    assert model.backbone.output_shape()["res5"].channels == convs[-1].out_channels == 48
    with pytest.raises(ValueError, match=r"depths \[1\], multipliers \[1.0\]; allowed: four of"):
        make_repvgg_blocks(depths=[1], multipliers=[1.0])


def test_training_mode_is_refused(build_model):
    model = build_model().train()
    with pytest.raises(ValueError, match=r"fuse\(\) in training mode; allowed: after eval\(\)"):
        model.fuse()
    assert count_norms(model) > 0 and model.aux_head is not None


def fold(network: nn.Module, *, left: int) -> int:
    """Fold with outputs that stay the same and so many norms left; returns how many are folded."""
    randomize_norms(network.eval())
    image = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        before = network(image)
        folded = fuse_conv_norm(network, lambda: network(torch.zeros(1, 3, 8, 8)))
        torch.testing.assert_close(network(image), before, rtol=1e-4, atol=1e-4)
    assert count_norms(network) == left
    return folded


def test_counts_and_group_norms_stay():
    stack = nn.Sequential(conv_norm_act(3, 32, 3), conv_norm_act(32, 32, norm="GN"))
    assert (fold(stack, left=0), fold(stack, left=0)) == (1, 0)
    assert isinstance(stack[1].norm, nn.GroupNorm)


class ByTheirNumbers(nn.Module):
    """Convolutions and norms in lists of their own, called by number where a shape says so."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(2))

    def forward(self, x):
        for conv, norm in zip(self.convs, self.norms):
            if x.shape[-1] > 1:
                x = F.relu(norm(conv(x)), inplace=True)
        return {"x": x}


class SharedTower(nn.Module):
    """One convolution and its norm over two levels, as in many heads."""

    def __init__(self):
        super().__init__()
        self.tower = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.BatchNorm2d(3), nn.ReLU())

    def forward(self, x):
        return [self.tower(x), self.tower(F.max_pool2d(x, 2))]


@pytest.mark.parametrize(
    "build, count",
    [
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), 1),
        (lambda: nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, affine=False)), 1),
        (lambda: nn.Sequential(Conv2d(3, 4, 3), nn.Identity(), nn.BatchNorm2d(4)), 1),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.SyncBatchNorm(4)), 1),
        (lambda: nn.Sequential(Conv2d(3, 4, 3, norm=NaiveSyncBatchNorm(4)), nn.ReLU()), 1),
        (lambda: timm.layers.ConvNormAct(3, 4, 3), 1),
        (lambda: timm.layers.SeparableConvNormAct(3, 4, 3), 1),  # between its two is no norm
        (lambda: Conv2dNormActivation(3, 4, 3), 1),
        (ByTheirNumbers, 2),
        (SharedTower, 1),
    ],
)
def test_whatever_a_module_is_made_of(build, count):
    network = build()
    norms = sum(isinstance(x, nn.modules.batchnorm._BatchNorm) for x in network.modules())
    assert norms == count
    assert fold(network, left=0) == count
    assert not any(isinstance(x, nn.modules.batchnorm._BatchNorm) for x in network.modules())


class Shared(nn.Module):
    """A convolution whose output is used beside its norm, and one that runs twice."""

    def __init__(self):
        super().__init__()
        self.first, self.norm1 = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.twice, self.norm2 = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        x = self.first(x)
        x = x + self.norm1(x)
        return self.twice(self.norm2(self.twice(x)))


class Returned(nn.Module):
    """A convolution whose output is returned as well."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        x = self.conv(x)
        return {"before": x, "after": self.norm(x)}


class NormOfTwo(nn.Module):
    """A norm behind two convolutions, two norms behind one, and a weight that two share."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.norm = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.c, self.norm1, self.norm2 = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.d, self.e, self.norm3 = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.e.weight = self.d.weight

    def forward(self, x):
        x = self.norm(self.a(x)) + self.norm(self.b(x))
        y = self.c(x)
        return self.norm1(y) + self.norm2(y) + self.norm3(self.d(x)) + self.e(x)


class OwnWeight(nn.Conv2d):
    """Computes with another weight than the one that it has."""

    def forward(self, x):
        return F.conv2d(x, self.weight / self.weight.norm())


class InPlace(nn.Module):
    """A convolution whose output is changed before its norm gets it."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        x = self.conv(x)
        x.relu_()
        return self.norm(x)


@pytest.mark.parametrize(
    "build, left",
    [
        (Shared, 2),
        (Returned, 1),
        (NormOfTwo, 4),
        (InPlace, 1),
        (lambda: nn.Sequential(OwnWeight(3, 3, 1, bias=False), nn.BatchNorm2d(3)), 1),
        (lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)), 1),
        (lambda: nn.Sequential(Conv2d(3, 3, 1, activation=F.relu), nn.BatchNorm2d(3)), 1),
        (
            lambda: nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)),
            1,
        ),
    ],
)
def test_what_is_used_elsewhere_is_left(build, left):
    assert fold(build(), left=left) == 0


def test_a_network_that_does_not_run_is_left(caplog):
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)).eval()
    with caplog.at_level(logging.WARNING, logger="nanodet_d2"):
        assert fuse_conv_norm(network, lambda: network(torch.zeros(1, 4, 8, 8))) == 0
    assert count_norms(network) == 1 and "not folded: the network does not run" in caplog.text
