"""Contracts of backbone and neck: what they declare is what they produce."""

from __future__ import annotations

import pytest
import torch
from detectron2.layers import ShapeSpec

from nanodet_d2.checkpoint import convert_reference_state_dict
from nanodet_d2.layers import GhostModule, get_activation
from nanodet_d2.modeling import FPN, PAN, TAN, CustomCSPNet, GhostNet, GhostPAN, ShuffleNetV2
from nanodet_d2.modeling.backbone.shufflenetv2 import channel_shuffle

PARAMETERS = {"0.5x": 143_136, "1.0x": 776_420, "1.5x": 1_755_680, "2.0x": 3_342_052}


@pytest.mark.parametrize("size", PARAMETERS)
def test_shufflenet_declares_what_it_produces(size):
    backbone = ShuffleNetV2(size).eval()
    assert sum(p.numel() for p in backbone.parameters()) == PARAMETERS[size]
    features = backbone(torch.zeros(2, 3, 64, 96))
    assert list(features) == list(backbone.output_shape()) == ["res3", "res4", "res5"]
    for name, spec in backbone.output_shape().items():
        assert features[name].shape == (2, spec.channels, 64 // spec.stride, 96 // spec.stride)


def test_shufflenet_builds_only_what_is_asked_for():
    backbone = ShuffleNetV2("0.5x", out_features=["res4"])
    assert list(backbone.stages) == ["res3", "res4"]
    assert list(backbone(torch.zeros(1, 3, 32, 32))) == ["res4"]
    assert backbone.size_divisibility == 16


def test_shufflenet_refuses_what_it_has_not():
    with pytest.raises(ValueError, match="'3x'; allowed: 0.5x, 1.0x"):
        ShuffleNetV2("3x")
    with pytest.raises(ValueError, match="res2.*allowed"):
        ShuffleNetV2("0.5x", out_features=["res2"])
    with pytest.raises(ValueError, match="unknown activation 'relu'"):
        get_activation("relu")


def test_channel_shuffle_interleaves_the_halves():
    x = torch.arange(6.0).view(1, 6, 1, 1)
    assert channel_shuffle(x).flatten().tolist() == [0, 3, 1, 4, 2, 5]


GHOST_PARAMETERS = {0.5: 690_612, 0.75: 1_527_026, 1.0: 2_671_428, 1.3: 4_479_100}
GHOST_CHANNELS = {
    0.5: [20, 56, 480],
    0.75: [32, 84, 720],
    1.0: [40, 112, 960],
    1.3: [52, 144, 1248],
}


@pytest.mark.parametrize("width", GHOST_PARAMETERS)
def test_ghostnet_declares_what_it_produces(width):
    backbone = GhostNet(width).eval()
    assert sum(p.numel() for p in backbone.parameters()) == GHOST_PARAMETERS[width]
    shapes = backbone.output_shape()
    assert [x.channels for x in shapes.values()] == GHOST_CHANNELS[width]
    features = backbone(torch.zeros(1, 3, 64, 96))
    assert list(features) == list(shapes) == ["res3", "res4", "res5"]
    for name, spec in shapes.items():
        assert features[name].shape == (1, spec.channels, 64 // spec.stride, 96 // spec.stride)


@pytest.mark.parametrize("stages, channels", [((4, 6, 8), [40, 112, 160]), ((2, 3), [24, 40])])
def test_ghostnet_builds_only_what_is_asked_for(stages, channels):
    backbone = GhostNet(out_stages=stages)
    assert [x.channels for x in backbone.output_shape().values()] == channels
    assert len(backbone.stages) == max(stages) + 1


def test_ghostnet_refuses_what_it_has_not():
    with pytest.raises(ValueError, match="allowed: one or more of 0 to 9"):
        GhostNet(out_stages=(4, 10))
    with pytest.raises(ValueError, match=r"share a stride .*3: 8, 4: 8.*one stage per stride"):
        GhostNet(out_stages=(3, 4, 6))


def test_ghostnet_equals_timms():
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("ghostnet_100").eval()
    state = {
        f"backbone.{k}": v
        for k, v in theirs.state_dict().items()
        if not k.startswith(("conv_head", "classifier"))
    }
    ours = GhostNet().eval()
    converted = convert_reference_state_dict(state)
    ours.load_state_dict({k.removeprefix("backbone."): v for k, v in converted.items()})
    images = torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images)["res5"], theirs.forward_features(images))


def test_shufflenet_equals_torchvisions():
    import torchvision

    theirs = torchvision.models.shufflenet_v2_x1_0().eval()
    state = {f"backbone.{k}": v for k, v in theirs.state_dict().items()}
    kept = {k: v for k, v in state.items() if not k.startswith(("backbone.conv5", "backbone.fc"))}
    ours = ShuffleNetV2("1.0x").eval()
    converted = convert_reference_state_dict(kept)
    ours.load_state_dict({k.removeprefix("backbone."): v for k, v in converted.items()})
    images = torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        x = theirs.maxpool(theirs.conv1(images))
        for stage, mine in zip(
            (theirs.stage2, theirs.stage3, theirs.stage4), ours(images).values()
        ):
            x = stage(x)
            torch.testing.assert_close(mine, x, rtol=1e-5, atol=1e-5)


SHAPES = {
    "res3": ShapeSpec(channels=8, stride=8),
    "res4": ShapeSpec(channels=12, stride=16),
    "res5": ShapeSpec(channels=20, stride=32),
}


def features_of(shapes, height=64, width=96):
    return {
        name: torch.randn(2, x.channels, height // x.stride, width // x.stride)
        for name, x in shapes.items()
    }


@pytest.mark.parametrize("extra, levels", [(0, 3), (1, 4)])
@pytest.mark.parametrize("use_depthwise", [True, False])
@pytest.mark.parametrize("num_blocks, residual", [(1, False), (2, True)])
def test_neck_declares_what_it_produces(extra, levels, use_depthwise, num_blocks, residual):
    neck = GhostPAN(
        SHAPES,
        out_channels=16,
        num_extra_levels=extra,
        use_depthwise=use_depthwise,
        num_blocks=num_blocks,
        residual=residual,
    )
    pyramid = neck(features_of(SHAPES))
    assert list(pyramid) == list(neck.output_shape()) == ["p3", "p4", "p5", "p6"][:levels]
    for name, spec in neck.output_shape().items():
        size = (-(-64 // spec.stride), -(-96 // spec.stride))
        assert pyramid[name].shape == (2, 16, *size)


def test_neck_takes_levels_of_equal_stride():
    shapes = {**SHAPES, "res5": ShapeSpec(channels=20, stride=16)}
    neck = GhostPAN(shapes, out_channels=16, num_extra_levels=0)
    pyramid = neck(features_of(shapes))
    assert [x.stride for x in neck.output_shape().values()] == [8, 16, 16]
    assert [tuple(x.shape[-2:]) for x in pyramid.values()] == [(8, 12), (4, 6), (4, 6)]


def test_neck_takes_chosen_features_by_stride():
    assert GhostPAN(dict(reversed(SHAPES.items()))).in_features == ["res3", "res4", "res5"]
    assert GhostPAN(SHAPES, in_features=["res4", "res5"]).in_features == ["res4", "res5"]


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(in_features=["res3", "res6"]), r"\['res6'\]; the backbone has"),
        (dict(in_features=["res3", "res5"]), r"strides \[8, 32\]"),
        (dict(out_channels=15), "allowed: positive even"),
        (dict(num_blocks=0), "num_blocks 0"),
        (dict(num_extra_levels=2), "num_extra_levels 2; allowed: 0 or 1"),
    ],
)
def test_neck_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        GhostPAN(SHAPES, **options)


def test_neck_names_sizes_that_do_not_fit():
    features = {
        name: x[..., :-1, :] if name == "res3" else x for name, x in features_of(SHAPES).items()
    }
    with pytest.raises(ValueError, match=r"\(4, 6\) does not up-sample by 2 to \(7, 12\)"):
        GhostPAN(SHAPES)(features)


def test_ghost_module_refuses_odd_channels():
    with pytest.raises(ValueError, match="even number of channels, got 7"):
        GhostModule(4, 7)


def test_csp_network_declares_what_it_produces():
    backbone = CustomCSPNet().eval()
    assert sum(p.numel() for p in backbone.parameters()) == 3_182_432
    features = backbone(torch.zeros(1, 3, 64, 96))
    assert list(features) == list(backbone.output_shape()) == ["res3", "res4", "res5"]
    assert [x.channels for x in backbone.output_shape().values()] == [128, 256, 512]
    for name, spec in backbone.output_shape().items():
        assert features[name].shape == (1, spec.channels, 64 // spec.stride, 96 // spec.stride)
    assert backbone.size_divisibility == 32


@pytest.mark.parametrize(
    "stages, out, message",
    [
        (
            [["Conv", 3, 8, 3]],
            [0],
            r"stage 0 is \['Conv', 3, 8, 3\]; allowed: Conv, input channels",
        ),
        ([["Pool", 3, 2]], [0], r"stage 0 is \['Pool', 3, 2\]; allowed: .*MaxPool, kernel size"),
        ([["Conv", 3, 8, 3, 2], ["CspBlock", 16, 1, 3, 2]], [1], "takes 16 channels; what is .* 8"),
        ([["Conv", 3, 8, 3, 2]], [1], r"out_stages \[1\]; allowed: .*\{0: 2\}"),
        ([["Conv", 3, 8, 3, 2], ["Conv", 8, 8, 3, 1]], [0, 1], r"\[0, 1\]; allowed: .*one per str"),
        ([["Conv", 3, 8, 3, 2]], [], r"out_stages \[\]; allowed: one or more"),
    ],
)
def test_csp_network_refuses_what_does_not_fit(stages, out, message):
    with pytest.raises(ValueError, match=message):
        CustomCSPNet(stages, out_stages=out)


def constant_laterals(neck, values):
    """Features that are 1 everywhere, and laterals that make ``values`` of them."""
    for conv, value in zip(neck.lateral_convs, values):
        torch.nn.init.zeros_(conv.weight)
        torch.nn.init.constant_(conv.bias, value)
    return {f"res{i}": torch.ones(1, 4, 2 ** (6 - i), 2 ** (6 - i)) for i in (3, 4, 5)}


SHAPES = {f"res{i}": ShapeSpec(channels=4, stride=2**i) for i in (3, 4, 5)}


@pytest.mark.parametrize("neck, expected", [(FPN, [111, 110, 100]), (PAN, [111, 221, 321])])
def test_sums_of_levels(neck, expected):
    part = neck(SHAPES, out_channels=2)
    pyramid = part(constant_laterals(part, [1.0, 10.0, 100.0]))
    assert list(pyramid) == ["p3", "p4", "p5"]
    for level, value in zip(pyramid.values(), expected):
        torch.testing.assert_close(level, torch.full_like(level, value))


def test_downsampling_is_the_references_interpolation():
    x = torch.randn(2, 3, 8, 12)
    wanted = torch.nn.functional.interpolate(x, scale_factor=0.5, mode="bilinear")
    torch.testing.assert_close(PAN(SHAPES).downsample(x, 2), wanted)


def test_tan_interpolates_its_positions():
    neck = TAN(SHAPES, out_channels=8, num_heads=2, feature_size=(4, 4)).eval()
    with torch.no_grad():
        neck.pos_embed[:] = torch.arange(16.0).view(16, 1, 1)  # 4 y + x
    assert neck._positions(4, 4)[0, :, 2, 1].tolist() == [9.0] * 8
    finer = neck._positions(8, 8)[0, 0]  # of the first channel
    torch.testing.assert_close(finer[3, 3], torch.tensor(4 * 1.25 + 1.25))
    assert neck({k: torch.randn(1, 4, 64 // s.stride, 32 // s.stride) for k, s in SHAPES.items()})


def test_tan_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match=r"TAN in_features \['res4', 'res5'\]; allowed: 3 of them"):
        TAN(SHAPES, in_features=["res4", "res5"])
    with pytest.raises(ValueError, match="TAN out_channels 12, num_heads 8; allowed: a multiple"):
        TAN(SHAPES, out_channels=12)
    with pytest.raises(ValueError, match=r"PAN in_features \['res6'\]; the backbone has"):
        PAN(SHAPES, in_features=["res6"])
