"""Networks of timm, torchvision and detectron2 as backbones."""

from __future__ import annotations

import logging
import random
from functools import partial

import pytest
import timm
import torch
import torchvision
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling.backbone import BasicStem, ResNet
from detectron2.structures import Boxes, Instances

from nanodet_d2.modeling import (
    GhostNet,
    GhostPAN,
    NanoDetPlus,
    NanoDetPlusHead,
    ShuffleNetV2,
    TimmBackbone,
    TorchvisionBackbone,
)
from nanodet_d2.modeling.backbone import make_dc5_stages
from nanodet_d2.modeling.backbone.levels import SimplePyramid, choose_levels


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """No test may wait for a hub, or find weights that an earlier run left in a cache."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))

    def refuse(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", refuse)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)


def check(backbone, size: int = 64) -> dict[str, ShapeSpec]:
    """Declared shapes are the produced ones, and a training step reaches every parameter."""
    shapes = backbone.output_shape()
    features = backbone.eval()(torch.randn(1, 3, size, size))
    assert list(features) == list(shapes)
    for name, spec in shapes.items():
        side = -(-size // spec.stride)
        assert features[name].shape == (1, spec.channels, side, side)
    model = NanoDetPlus(
        backbone=backbone,
        neck=partial(GhostPAN, out_channels=16),
        head=partial(NanoDetPlusHead, num_classes=2),
    ).train()
    boxes = Boxes(torch.tensor([[8.0, 8.0, size / 2, size / 2]]))
    instances = Instances((size, size), gt_boxes=boxes, gt_classes=torch.tensor([1]))
    sum(
        model([{"image": torch.rand(3, size, size) * 255, "instances": instances}] * 2).values()
    ).backward()
    assert all(p.grad is not None for p in backbone.parameters() if p.requires_grad)
    return shapes


TIMM_SHORT_FORM = {
    "mobilenetv3_large_100": ({"res3": 8, "res4": 16, "res5": 32}, [40, 112, 960]),
    "vgg11": ({"res3": 8, "res4": 16, "res5": 32}, [512, 512, 512]),
    "swin_tiny_patch4_window7_224": ({"res3": 8, "res4": 16, "res5": 32}, [192, 384, 768]),  # NHWC
    "vit_tiny_patch16_224": ({"res3": 8, "res4": 16, "res5": 32}, [96, 192, 192]),
    "inception_v3": ({"res3": 8, "res4": 16, "res5": 32}, [288, 768, 2048]),
    "hrnet_w18_small": ({"res3": 8, "res4": 16, "res5": 32}, [256, 512, 1024]),
}


def test_timm_with_weights_of_others():
    """They may want the other order of channels, with their own mean and deviation."""
    usual, other = (
        TimmBackbone("mobilenetv3_small_050", channel_order=x).input_spec for x in ("RGB", "BGR")
    )
    assert other == ("BGR", usual.pixel_mean[::-1], usual.pixel_std[::-1])
    with pytest.raises(ValueError, match="channel_order 'GBR'; allowed: RGB, BGR"):
        TimmBackbone("mobilenetv3_small_050", channel_order="GBR")


@pytest.mark.parametrize("name", TIMM_SHORT_FORM)
def test_timm_short_form(name):
    shapes = check(TimmBackbone(name), size=128)
    strides, channels = TIMM_SHORT_FORM[name]
    assert {k: x.stride for k, x in shapes.items()} == strides
    assert [x.channels for x in shapes.values()] == channels


@pytest.mark.slow
def test_seeded_sample_of_timm():
    """Each network runs, or is refused with a reason; the whole sweep is a script."""
    sample = random.Random(0).sample(timm.list_models("*tiny*") + timm.list_models("*_0*"), 14)
    ran = 0
    for name in sample:
        with torch.device("meta"):
            small = sum(p.numel() for p in timm.create_model(name).parameters()) < 12e6
        if not small:
            continue
        try:
            backbone = TimmBackbone(name)
        except ValueError as error:
            assert name in str(error) and "strides" in str(error)
            continue
        size = timm.get_pretrained_cfg(name, allow_unregistered=False).input_size[-1]
        check(backbone, -(-size // backbone.size_divisibility) * backbone.size_divisibility)
        ran += 1
    assert ran >= 4


@pytest.mark.parametrize(
    "name, channels",
    [
        ("mobilenet_v3_large", [40, 112, 960]),
        ("resnet18", [128, 256, 512]),
        ("shufflenet_v2_x0_5", [48, 96, 1024]),
        ("regnet_x_400mf", [64, 160, 400]),
        ("swin_t", [192, 384, 768]),
    ],
)
def test_torchvision_short_form(name, channels):
    shapes = check(TorchvisionBackbone(name), size=128)
    assert [x.channels for x in shapes.values()] == channels
    assert [x.stride for x in shapes.values()] == [8, 16, 32]


def nanodet(backbone, **neck) -> NanoDetPlus:
    from nanodet_d2.config import LazyPartial

    cfg = L(NanoDetPlus)(
        backbone=backbone,
        neck=LazyPartial(GhostPAN)(out_channels=16),
        head=LazyPartial(NanoDetPlusHead)(num_classes=2),
    )
    for key, value in neck.items():
        cfg.neck[key] = value
    return instantiate(cfg)


def test_detrex_form_of_timm():
    backbone = L(TimmBackbone)(
        model_name="resnet18",
        features_only=True,
        pretrained=False,
        in_channels=3,
        out_indices=(1, 2, 3),
        norm_layer=FrozenBatchNorm2d,
    )
    typed = {
        "p1": ShapeSpec(channels=64),
        "p2": ShapeSpec(channels=128),
        "p3": ShapeSpec(channels=256),
    }
    model = nanodet(backbone, input_shapes=typed, in_features=["p1", "p2", "p3"])
    assert {k: x.stride for k, x in model.backbone.output_shape().items()} == {
        "p1": 4,
        "p2": 8,
        "p3": 16,
    }
    assert any(isinstance(m, FrozenBatchNorm2d) for m in model.backbone.modules())
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in model.backbone.modules())

    typed["p2"] = ShapeSpec(channels=512)
    with pytest.raises(ValueError, match="says 512 channels for 'p2', but it has 128"):
        nanodet(backbone, input_shapes=typed, in_features=["p1", "p2", "p3"])
    with pytest.raises(ValueError, match=r"has 'p7'; there are \['p1', 'p2', 'p3'\]"):
        nanodet(backbone, input_shapes={"p7": ShapeSpec(channels=1)})


def test_detrex_form_of_torchvision():
    nodes = {"layer2": "res3", "layer3": "res4", "layer4": "res5"}
    backbone = L(TorchvisionBackbone)(model_name="resnet50", pretrained=False, return_nodes=nodes)
    model = nanodet(backbone)
    assert [x.channels for x in model.backbone.output_shape().values()] == [512, 1024, 2048]


@pytest.mark.parametrize(
    "depth, channels", [(18, 512), (34, 512), (50, 2048), (101, 2048), (152, 2048)]
)
def test_resnet_of_every_depth(depth, channels):
    cfg = L(ResNet)(
        stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
        stages=L(ResNet.make_default_stages)(depth=depth, norm="FrozenBN"),
        out_features=["res3", "res4", "res5"],
        freeze_at=1,
    )
    backbone = instantiate(cfg)
    assert backbone.output_shape()["res5"].channels == channels
    assert not any(p.requires_grad for p in backbone.stem.parameters())
    if depth == 18:
        check(backbone)


def test_dilated_resnet_keeps_its_stride():
    stages = make_dc5_stages(50, norm="BN")
    backbone = ResNet(BasicStem(norm="BN"), stages, out_features=["res3", "res4", "res5"])
    assert [x.stride for x in check(backbone).values()] == [8, 16, 16]
    for depth in (18, 20):
        with pytest.raises(ValueError, match=rf"depth {depth} with DC5; allowed: \[50, 101, 152\]"):
            make_dc5_stages(depth)


def test_layers_after_the_last_level_are_not_kept():
    for build in (TimmBackbone, TorchvisionBackbone):
        backbone = build("resnet18", strides=(4, 8))
        assert list(backbone.output_shape()) == ["res2", "res3"]
        names = [name for name, _ in backbone.network.named_parameters()]
        assert names and not any(x.startswith(("layer3", "layer4", "fc")) for x in names)


@pytest.mark.slow
def test_freezing():
    for build in (TimmBackbone, TorchvisionBackbone):
        backbone = build("resnet18", freeze_at=2)  # stem and layer1
        frozen = {n.split(".")[1] for n, p in backbone.named_parameters() if not p.requires_grad}
        assert frozen == {"conv1", "layer1"}
        assert isinstance(backbone.network.bn1, FrozenBatchNorm2d)
        trained = {n.split(".")[1] for n, p in backbone.named_parameters() if p.requires_grad}
        assert trained == {"layer2", "layer3", "layer4"}
        check(backbone)
        modules = list(build("resnet18", freeze_norm=True).modules())
        assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in modules)
    with pytest.raises(ValueError, match="freeze_at 2 cannot be done"):
        TimmBackbone("vit_tiny_patch16_224", freeze_at=2)


def test_images_arrive_in_the_order_of_the_weights():
    red = torch.zeros(3, 32, 32)
    red[2] = 255.0  # BGR
    model = nanodet(L(TimmBackbone)(model_name="resnet18"))
    mean, std = timm.get_pretrained_cfg("resnet18").mean, timm.get_pretrained_cfg("resnet18").std
    pixel = model.preprocess_image([{"image": red}]).tensor[0, :, 0, 0]
    expected = [(1 - mean[0]) / std[0], -mean[1] / std[1], -mean[2] / std[2]]  # RGB
    torch.testing.assert_close(pixel, torch.tensor(expected))
    native = nanodet(L(ShuffleNetV2)(size="0.5x"))
    assert float(native.preprocess_image([{"image": red}]).tensor[0, 2, 0, 0]) > 2


def test_local_weights_are_loaded_and_logged(tmp_path, caplog):
    theirs = timm.create_model("resnet18")
    torch.save(theirs.state_dict(), tmp_path / "resnet18.pth")
    path = str(tmp_path / "resnet18.pth")
    with caplog.at_level(logging.INFO, logger="nanodet_d2"):
        for options in (
            dict(checkpoint_path=path),
            dict(pretrained=True, pretrained_cfg_overlay={"file": path}),
        ):
            ours = TimmBackbone("resnet18", **options)
            weights = dict(ours.network.named_parameters())
            assert torch.equal(weights["layer4.1.conv2.weight"], theirs.layer4[1].conv2.weight)
    assert caplog.text.count("resnet18.pth") == 2

    theirs = torchvision.models.resnet18()
    torch.save(theirs.state_dict(), tmp_path / "tv.pth")
    ours = TorchvisionBackbone("resnet18", checkpoint_path=str(tmp_path / "tv.pth"))
    weights = dict(ours.network.named_parameters())
    assert torch.equal(weights["layer4.1.conv2.weight"], theirs.layer4[1].conv2.weight)


def test_local_weights_of_the_native_backbones(tmp_path):
    theirs = torchvision.models.shufflenet_v2_x0_5()
    torch.save(theirs.state_dict(), tmp_path / "shuffle.pth")
    ours = ShuffleNetV2("0.5x", checkpoint_path=str(tmp_path / "shuffle.pth"))
    assert torch.equal(ours.stem.weight, theirs.conv1[0].weight)
    assert ours.input_spec.channel_order == "RGB"
    theirs = timm.create_model("ghostnet_100")
    torch.save(theirs.state_dict(), tmp_path / "ghost.pth")
    ours = GhostNet(checkpoint_path=str(tmp_path / "ghost.pth"), out_stages=(4, 6, 8))
    assert torch.equal(ours.stem.weight, theirs.conv_stem.weight)
    with pytest.raises(ValueError, match="shuffle.pth does not fit"):
        ShuffleNetV2("1.0x", checkpoint_path=str(tmp_path / "shuffle.pth"))


@pytest.mark.parametrize(
    "build",
    [
        partial(TimmBackbone, "resnet18"),
        partial(TorchvisionBackbone, "resnet18"),
        ShuffleNetV2,
        GhostNet,
    ],
)
def test_weights_without_a_network(build):
    with pytest.raises(ValueError, match=r"cannot be had from the network[\s\S]*checkpoint_path="):
        build(pretrained=True)


@pytest.mark.parametrize(
    "build, message",
    [
        (partial(TimmBackbone, "mobilenetv3_lagre_100"), "close: mobilenetv3_large_100"),
        (partial(TorchvisionBackbone, "resnet81"), "close: .*resnet18"),
        (
            partial(TimmBackbone, "levit_128s"),
            r"no features of stride 8; it has strides \[16, 32, 64\]",
        ),
        (partial(TorchvisionBackbone, "squeezenet1_0"), "no features of stride 32; it has strides"),
        (partial(TimmBackbone, "resnet18", out_indices=(1, 9)), "allowed: 0 to 4, with strides"),
        (partial(TorchvisionBackbone, "resnet18", return_nodes={"layr2": "a"}), "close: .*layer2"),
        (partial(TimmBackbone, "resnet18", features_only=False), "features_only False"),
        (partial(TimmBackbone, "resnet18", drop_paht_rate=0.1), "drop_paht_rate"),
        (partial(GhostNet, 0.5, pretrained=True), "width_mult 0.5 has no weights"),
    ],
)
def test_what_is_not_there_is_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_fixed_input_sizes_are_named():
    backbone = TimmBackbone("mixer_s32_224")
    with pytest.raises(
        ValueError, match=r"fails on images of \(256, 256\).*takes images of \(224, 224\)"
    ):
        backbone(torch.zeros(1, 3, 256, 256))
    check(TimmBackbone("mixer_s32_224", img_size=64), size=64)


def test_level_choice_and_pyramid():
    assert choose_levels([2, 4, 8, 8, 16, 32, 32], (8, 16, 32), "x") == [3, 4, 6]
    pyramid = SimplePyramid(8, 14)
    assert [x.stride for x in pyramid.shapes] == [7, 14, 28]
    maps = pyramid(torch.zeros(1, 8, 10, 10))
    assert [tuple(m.shape[1:]) for m in maps] == [(4, 20, 20), (8, 10, 10), (8, 5, 5)]
