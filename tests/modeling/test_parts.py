"""What is asked of a part holds for every part, and is enough to write one."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from detectron2.structures import Boxes, Instances
from torch import nn
from torch.nn import functional as F

from nanodet_d2.checkpoint import load_weights
from nanodet_d2.checkpoint.class_names import starting_rows
from nanodet_d2.export.network import export_network
from nanodet_d2.layers import fuse_conv_norm
from nanodet_d2.modeling import (
    FPN,
    PAN,
    TAN,
    GFLHead,
    GhostPAN,
    NanoDetHead,
    NanoDetPlus,
    NanoDetPlusHead,
    SimpleConvHead,
    head,
    neck,
)
from nanodet_d2.modeling.head import GroundTruth, Predictions
from nanodet_d2.modeling.parts import AuxHead, Head, Neck

C, R = 3, 4
K = C + 4 * (R + 1)


class PlainNeck(nn.Module):
    """A neck by the protocol alone, of torch's own layers: it up-samples from twice its stride."""

    def __init__(self, input_shapes, *, out_channels: int = 8):
        super().__init__()
        self.strides = {f"p{name[3:]}": shape.stride for name, shape in input_shapes.items()}
        self.out_channels = out_channels
        self.convs = nn.ModuleList(
            nn.Conv2d(shape.channels, out_channels, 1) for shape in input_shapes.values()
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(out_channels) for _ in input_shapes)
        self.down = nn.Sequential(
            nn.Conv2d(out_channels, out_channels, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )

    @property
    def size_divisibility(self):
        return 2 * max(self.strides.values())

    def output_shape(self):
        return {k: ShapeSpec(channels=self.out_channels, stride=s) for k, s in self.strides.items()}

    def forward(self, features):
        levels = [
            norm(conv(x)) for (_, x), conv, norm in zip(features.items(), self.convs, self.norms)
        ]
        levels[-1] = levels[-1] + F.interpolate(self.down(levels[-1]), scale_factor=2.0)
        return dict(zip(self.strides, levels))


class PlainHead(nn.Module):
    """A head by the protocol alone: one tower for all levels, and a predictor per task."""

    def __init__(self, input_shapes, *, num_classes: int, reg_max: int):
        super().__init__()
        self.num_classes, self.reg_max = num_classes, reg_max
        self.names = list(input_shapes)
        self.strides = [shape.stride for shape in input_shapes.values()]
        channels = input_shapes[self.names[0]].channels
        self.tower = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()
        )
        self.classes = nn.Conv2d(channels, num_classes, 1)
        self.sides = nn.Conv2d(channels, 4 * (reg_max + 1), 1)

    def maps(self, pyramid):
        towers = [self.tower(pyramid[name]) for name in self.names]
        return [torch.cat([self.classes(x), self.sides(x)], dim=1) for x in towers]

    def forward(self, pyramid):
        return torch.cat([x.flatten(2).transpose(1, 2) for x in self.maps(pyramid)], dim=1)

    def priors(self, pyramid):
        levels = []
        for name, stride in zip(self.names, self.strides):
            y, x = torch.meshgrid(*map(torch.arange, pyramid[name].shape[-2:]), indexing="ij")
            levels.append(torch.stack([x, y, torch.ones_like(x)], dim=-1).flatten(0, 1) * stride)
        return torch.cat(levels).float()

    def decode(self, raw, priors):
        return Predictions.from_raw(raw, priors, torch.arange(self.reg_max + 1.0))

    def losses(self, raw, priors, truth, aux_raw=None):
        branches = [raw] if aux_raw is None else [raw, aux_raw]
        any_box = truth.valid.any(dim=1).float()  # (N,)
        logits = sum(self.decode(x, priors).logits.amax(dim=(1, 2)) for x in branches)
        sides = sum(x[..., self.num_classes :].square().mean() for x in branches)
        return {
            "loss_class": F.binary_cross_entropy_with_logits(logits, any_box),
            "loss_box": sides,
        }

    def class_rows(self):
        rows = slice(0, self.num_classes)
        return {"classes.weight": rows, "classes.bias": rows}


class PlainBackbone(Backbone):
    """A backbone of a user's own, that does not say what its images have to be divisible by."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=8, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self._out_features = ["res3", "res4", "res5"]
        self._out_feature_channels = dict.fromkeys(self._out_features, 4)
        self._out_feature_strides = {"res3": 8, "res4": 16, "res5": 32}

    def forward(self, x):
        res3 = self.norm(self.stem(x))
        res4 = F.max_pool2d(res3, 2)
        return {"res3": res3, "res4": res4, "res5": F.max_pool2d(res4, 2)}


FEATURES = {
    "res3": ShapeSpec(channels=6, stride=8),
    "res4": ShapeSpec(channels=10, stride=16),
    "res5": ShapeSpec(channels=14, stride=32),
}
PYRAMID = {f"p{i}": ShapeSpec(channels=8, stride=2**i) for i in (3, 4, 5, 6)}
NECKS = {
    "GhostPAN": partial(GhostPAN, out_channels=8),
    "GhostPAN, full convolutions": partial(GhostPAN, out_channels=8, use_depthwise=False),
    "GhostPAN, no extra level": partial(GhostPAN, out_channels=8, num_extra_levels=0),
    "FPN": partial(FPN, out_channels=8),
    "FPN with norms": partial(FPN, out_channels=8, norm="BN", activation="ReLU"),
    "PAN": partial(PAN, out_channels=8, norm="BN"),
    "TAN": partial(TAN, out_channels=8, num_heads=2, feature_size=(2, 2)),
    "PlainNeck": PlainNeck,
}
WITHOUT_NORMS = ("FPN",)
_simple = partial(SimpleConvHead, norm="BN", stacked_convs=1)  # too narrow for its GroupNorm
HEADS = {
    "NanoDetPlusHead": partial(NanoDetPlusHead, num_classes=C, reg_max=R),
    "NanoDetPlusHead, full convolutions": partial(
        NanoDetPlusHead, num_classes=C, reg_max=R, use_depthwise=False, feat_channels=12
    ),
    "NanoDetHead": partial(NanoDetHead, num_classes=C, reg_max=R, share_cls_reg=True),
    "NanoDetHead, towers apart": partial(NanoDetHead, num_classes=C, reg_max=R),
    "GFLHead": partial(GFLHead, num_classes=C, reg_max=R, norm="BN", stacked_convs=1),
    "SimpleConvHead": partial(_simple, num_classes=C, reg_max=R),
    "PlainHead": partial(PlainHead, num_classes=C, reg_max=R),
}
AUX_HEADS = {
    "SimpleConvHead": _simple,
    "SimpleConvHead, light": partial(_simple, use_depthwise=True),
    "PlainHead": PlainHead,
}
MULTIPLES = [(1, 1), (2, 3)]


def levels_of(shapes, height: int, width: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {
        name: torch.randn(2, x.channels, -(-height // x.stride), -(-width // x.stride))
        for name, x in shapes.items()
    }


def build(part, **arguments) -> nn.Module:
    torch.manual_seed(0)
    return part(**arguments).eval()


def randomize_norms(module: nn.Module) -> None:
    for x in module.modules():
        if isinstance(x, nn.BatchNorm2d):
            nn.init.uniform_(x.running_var, 0.5, 1.5)
            nn.init.normal_(x.running_mean)


def check_fuse(module: nn.Module, inputs: dict[str, torch.Tensor]) -> None:
    """All batch norms are folded, and outputs stay the same."""
    randomize_norms(module)
    with torch.no_grad():
        before = module(inputs)
        assert fuse_conv_norm(module, lambda: module(inputs)) > 0
        assert not any(isinstance(x, nn.BatchNorm2d) for x in module.modules())
        torch.testing.assert_close(module(inputs), before, rtol=1e-3, atol=1e-4)


def test_all_shipped_parts_are_looked_at():
    shipped = [x for room in (neck, head) for x in vars(room).values()]
    modules = {x for x in shipped if isinstance(x, type) and issubclass(x, nn.Module)}
    looked_at = {getattr(x, "func", x) for x in (*NECKS.values(), *HEADS.values())}
    looked_at |= {getattr(x, "func", x) for x in AUX_HEADS.values()}
    assert modules - {head.DynamicSoftLabelAssigner} <= looked_at


@pytest.mark.parametrize("name", NECKS)
@pytest.mark.parametrize("multiple", MULTIPLES)
def test_necks(name, multiple):
    part = build(NECKS[name], input_shapes=FEATURES)
    assert isinstance(part, Neck)
    shapes, divisor = part.output_shape(), part.size_divisibility
    assert list(shapes) == sorted(shapes, key=lambda x: shapes[x].stride)
    assert len({x.channels for x in shapes.values()}) == 1
    height, width = (divisor * x for x in multiple)
    features = levels_of(FEATURES, height, width)
    kept = {k: x.clone() for k, x in features.items()}
    pyramid = part(features)
    assert list(pyramid) == list(shapes)
    for k, x in shapes.items():
        size = (-(-height // x.stride), -(-width // x.stride))
        assert pyramid[k].shape == (2, x.channels, *size)
    assert all(torch.equal(x, kept[k]) for k, x in features.items())  # the other neck's, too
    if name not in WITHOUT_NORMS:
        check_fuse(part, features)


def ground_truth(boxes_per_image: list[list[list[float]]]) -> GroundTruth:
    return GroundTruth.from_instances(
        [
            Instances(
                (64, 96),
                gt_boxes=Boxes(torch.tensor(boxes).reshape(-1, 4)),
                gt_classes=torch.zeros(len(boxes), dtype=torch.int64),
            )
            for boxes in boxes_per_image
        ]
    )


def check_raw(part: nn.Module, pyramid: dict[str, torch.Tensor]) -> torch.Tensor:
    raw = part(pyramid)
    assert raw.shape == (2, sum(x.shape[2] * x.shape[3] for x in pyramid.values()), K)
    rows, state = part.class_rows(), part.state_dict()
    assert rows and all(state[k][x].shape[0] == C for k, x in rows.items())
    return raw


@pytest.mark.parametrize("name", HEADS)
def test_heads(name):
    part = build(HEADS[name], input_shapes=PYRAMID)
    assert isinstance(part, Head)
    assert (part.num_classes, part.reg_max) == (C, R)
    assert list(part.strides) == [x.stride for x in PYRAMID.values()]
    pyramid = levels_of(PYRAMID, 64, 96)
    raw = check_raw(part, pyramid)
    maps = part.maps(pyramid)
    assert [x.shape for x in maps] == [(2, K, *x.shape[-2:]) for x in pyramid.values()]
    flat = torch.cat([x.flatten(2).transpose(1, 2) for x in maps], dim=1)
    torch.testing.assert_close(raw, flat)

    priors = part.priors(pyramid)
    assert priors.shape == (raw.shape[1], 3)
    assert sorted(set(priors[:, 2].tolist())) == list(part.strides)
    offset = 8 * getattr(part, "prior_offset", 0.0)
    assert priors[1].tolist() == [8 + offset, offset, 8]  # row by row
    found = part.decode(raw, priors)
    assert found.logits.shape == (2, len(priors), C) and found.boxes.shape == (2, len(priors), 4)
    torch.testing.assert_close(found.logits, raw[..., :C])
    certain = torch.full_like(raw, -50.0)
    certain.unflatten(-1, (K,))[..., [C + i * (R + 1) + 2 for i in range(4)]] = 50.0
    box = part.decode(certain, priors).boxes[0, 1]  # two strides to each side
    torch.testing.assert_close(box, offset + torch.tensor([8.0 - 16, -16, 8 + 16, 16]))
    check_fuse(part, pyramid)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("auxiliary", [False, True])
@pytest.mark.parametrize("boxes", [[[[8.0, 8, 40, 50]], []], [[], []]])
def test_losses_of_heads(name, auxiliary, boxes):
    part = build(HEADS[name], input_shapes=PYRAMID).train()
    pyramid = levels_of(PYRAMID, 64, 96)
    raw = part(pyramid)
    aux_raw = raw.detach().clone().requires_grad_() if auxiliary else None
    losses = part.losses(raw, part.priors(pyramid), ground_truth(boxes), aux_raw)
    assert losses and all(x.dim() == 0 and torch.isfinite(x) for x in losses.values())
    sum(losses.values()).backward()
    gradients = [x.grad for x in part.parameters()]
    assert all(x is not None and torch.isfinite(x).all() for x in gradients)
    assert not auxiliary or aux_raw.grad.abs().sum() > 0


@pytest.mark.parametrize("name", AUX_HEADS)
def test_auxiliary_heads(name):
    part = build(AUX_HEADS[name], input_shapes=PYRAMID, num_classes=C, reg_max=R)
    assert isinstance(part, AuxHead)
    check_raw(part, levels_of(PYRAMID, 64, 96))


def plain_model(num_classes: int = C, **parts) -> NanoDetPlus:
    torch.manual_seed(0)
    defaults = dict(
        backbone=PlainBackbone(),
        neck=PlainNeck,
        head=partial(PlainHead, num_classes=num_classes, reg_max=R),
        aux_head=PlainHead,
        score_thresh=0.0,
    )
    return NanoDetPlus(**{**defaults, **parts})


def test_a_detector_of_ones_own_parts(tmp_path):
    model = plain_model().train()
    image = torch.randint(0, 256, (3, 96, 96), dtype=torch.uint8)
    instances = Instances(
        (96, 96),
        gt_boxes=Boxes(torch.tensor([[8.0, 8, 40, 50]])),
        gt_classes=torch.tensor([1]),
    )
    losses = model([{"image": image, "instances": instances}] * 2)
    sum(losses.values()).backward()
    assert all(x.grad is not None for x in model.parameters())
    assert len(model.eval()([{"image": image}])[0]["instances"]) > 0

    torch.save({"model": model.state_dict()}, tmp_path / "w.pth")
    assert load_weights(plain_model(), str(tmp_path / "w.pth"), require_all=True).complete
    other = plain_model(num_classes=5)
    report = load_weights(other, str(tmp_path / "w.pth"))
    assert sorted(report.reset_classes) == sorted(
        f"{part}.classes.{x}" for part in ("head", "aux_head") for x in ("weight", "bias")
    )
    state, saved = other.state_dict(), model.state_dict()
    for i, rows in starting_rows(5, C, {}).items():
        expected = saved["head.classes.weight"][list(rows)].mean(dim=0)
        assert torch.equal(state["head.classes.weight"][i], expected)
    assert torch.equal(state["head.sides.weight"], saved["head.sides.weight"])


def test_exports_take_ones_own_parts():
    model = plain_model().eval()
    randomize_norms(model)
    data = torch.rand(1, 3, 64, 128)
    with torch.no_grad():
        expected = model.head(model.neck(model.backbone(data)))
        raw = export_network(model, "raw")(data)
        torch.testing.assert_close(raw[..., :C], expected[..., :C].sigmoid())
        torch.testing.assert_close(raw[..., C:], expected[..., C:], rtol=1e-4, atol=1e-4)
        boxes, scores = export_network(model, "decoded")(data)
        assert boxes.shape == (1, expected.shape[1], 4) and boxes.min() >= 0
        torch.testing.assert_close(scores, raw[..., :C])
        split = export_network(model, "split")(data)
    sizes = [(8, 16), (4, 8), (2, 4)]
    assert [x.shape for x in split[:3]] == [(1, C, *size) for size in sizes]
    assert [x.shape for x in split[3:]] == [(1, *size, K - C) for size in sizes]
    scores = torch.cat([x.flatten(2).transpose(1, 2) for x in split[:3]], dim=1)
    torch.testing.assert_close(scores, raw[..., :C])
    fused = export_network(model, "raw")
    assert not any(isinstance(x, nn.BatchNorm2d) for x in fused.modules())
    assert fused.size_divisibility == 64


def test_the_neck_is_asked_for_the_size_of_images():
    model = plain_model().eval()
    assert model.neck.size_divisibility == model.size_divisibility == 64
    images = model.preprocess_image([{"image": torch.zeros(3, 96, 160)}])
    assert images.tensor.shape == (1, 3, 128, 192)
    assert model([{"image": torch.zeros(3, 96, 160)}])[0]["instances"].image_size == (96, 160)

    class Picky(PlainBackbone):
        size_divisibility = 24

    finer = partial(GhostPAN, in_features=["res3", "res4"])
    assert plain_model(neck=finer, backbone=Picky()).size_divisibility == 48
    assert plain_model(neck=finer).size_divisibility == 32  # the backbone's coarsest stride


def test_what_a_part_lacks_is_named():
    class Nameless(nn.Module):
        def __init__(self, input_shapes):
            super().__init__()

        def output_shape(self):
            return {}

    with pytest.raises(
        ValueError, match=r"Nameless is no Neck: it lacks size_divisibility; .*parts\.Neck says"
    ):
        plain_model(neck=Nameless)
    with pytest.raises(ValueError, match=r"PlainNeck is no Head: it lacks class_rows, decode, lo"):
        plain_model(head=PlainNeck)
