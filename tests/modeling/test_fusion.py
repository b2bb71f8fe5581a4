"""Folding batch norms into convolutions changes nothing but the speed."""

from __future__ import annotations

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling.backbone import BasicStem
from torch import nn

from nanodet_d2.layers import conv_norm_act, fuse_conv_norm, fuse_traced_conv_norm
from nanodet_d2.modeling import GhostNet, ShuffleNetV2, TimmBackbone, TorchvisionBackbone
from nanodet_d2.modeling.backbone.resnet import ResNet, make_stage

NORMS = (nn.BatchNorm2d, FrozenBatchNorm2d)


def detectron2_resnet() -> ResNet:
    return ResNet(
        BasicStem(3, 64, "FrozenBN"),
        make_stage(depth=18, norm="BN"),
        out_features=["res3", "res4", "res5"],
    )


# The backbone, and how many norms may be left: those that no convolution goes before alone.
BACKBONES = {
    "shufflenet": (lambda: ShuffleNetV2("0.5x"), 0),
    "ghostnet": (GhostNet, 0),
    "resnet": (detectron2_resnet, 0),
    "timm mobilenet": (lambda: TimmBackbone("mobilenetv3_small_050"), 0),
    "timm resnet": (lambda: TimmBackbone("resnet18"), 0),
    "torchvision mobilenet": (lambda: TorchvisionBackbone("mobilenet_v3_small"), 0),
    "torchvision densenet": (lambda: TorchvisionBackbone("densenet121"), 62),
    "timm vit": (lambda: TimmBackbone("vit_tiny_patch16_224"), 0),
}


def randomize_norms(model: nn.Module) -> None:
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, NORMS):
            for x in (module.weight, module.running_var):
                nn.init.uniform_(x.data, 0.5, 1.5)
            for x in (module.bias, module.running_mean):
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


def test_training_mode_is_refused(build_model):
    model = build_model().train()
    with pytest.raises(ValueError, match=r"fuse\(\) in training mode; allowed: after eval\(\)"):
        model.fuse()
    assert count_norms(model) > 0 and model.aux_head is not None


def test_counts_and_group_norms_stay():
    stack = nn.Sequential(conv_norm_act(3, 32, 3), conv_norm_act(32, 32, norm="GN"))
    assert (fuse_conv_norm(stack.eval()), fuse_conv_norm(stack)) == (1, 0)
    assert isinstance(stack[1].norm, nn.GroupNorm)


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


def test_what_is_used_elsewhere_is_left():
    network = Shared().eval()
    assert fuse_traced_conv_norm(network) == 0
    assert count_norms(network) == 2
