"""The meta-architecture: wiring, the auxiliary branch over time, inputs of all kinds."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from nanodet_d2.modeling import NanoDetPlus, ShuffleNetV2, SimpleConvHead


def sample(height=96, width=96, boxes=((8, 8, 40, 50),), classes=(1,), **fields) -> dict:
    instances = Instances(
        (height, width),
        gt_boxes=Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)),
        gt_classes=torch.tensor(classes, dtype=torch.int64),
    )
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    return {"image": image, "instances": instances, **fields}


EMPTY = dict(boxes=(), classes=())


def gradients(model: NanoDetPlus, iteration: int) -> dict[str, bool]:
    """Which parts get a gradient in this iteration of a training."""
    model.zero_grad()
    with EventStorage(iteration):
        losses = model([sample(), sample(**EMPTY)])
    sum(losses.values()).backward()
    return {
        part: any(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())
        for part, module in model.named_children()
    }


def test_is_registered():
    assert META_ARCH_REGISTRY.get("NanoDetPlus") is NanoDetPlus


def test_auxiliary_neck_starts_as_a_copy(build_model):
    model = build_model()
    own, aux = model.neck.state_dict(), model.aux_neck.state_dict()
    assert all(torch.equal(own[k], aux[k]) for k in own)
    assert model.neck is not model.aux_neck


def test_guide_detaches_and_goes_on(build_model):
    model = build_model(aux_detach_iter=5, aux_after_detach="guide").train()
    with EventStorage(5):
        losses = model([sample()])
    assert set(losses) == {f"{p}loss_{x}" for p in ("", "aux_") for x in ("qfl", "bbox", "dfl")}
    assert all(gradients(model, 4).values())
    # After the detachment the branch still learns, and the rest learns from its own loss alone.
    assert all(gradients(model, 5).values())
    aux_only = {k: v for k, v in losses.items() if k.startswith("aux_")}
    model.zero_grad()
    sum(aux_only.values()).backward()
    assert all(p.grad is None for p in model.backbone.parameters())
    assert all(p.grad is None for p in model.neck.parameters())


def test_drop_takes_the_branch_out_of_the_step(build_model):
    model = build_model(aux_detach_iter=5, aux_after_detach="drop").train()
    with EventStorage(5):
        assert set(model([sample()])) == {"loss_qfl", "loss_bbox", "loss_dfl"}
    after = gradients(model, 5)
    assert not after["aux_neck"] and not after["aux_head"] and after["backbone"] and after["head"]


def test_inference_does_without_the_branch(build_model):
    model = build_model()
    exported = {k: v for k, v in model.state_dict().items() if not k.startswith("aux_")}
    assert exported
    plain = build_model(aux_head=None)
    plain.load_state_dict(exported)  # strict: nothing missing, nothing left over
    image = {"image": sample()["image"]}
    with torch.no_grad():
        a, b = model.eval()([image])[0]["instances"], plain.eval()([image])[0]["instances"]
    assert torch.equal(a.scores, b.scores) and torch.equal(a.pred_boxes.tensor, b.pred_boxes.tensor)


def test_branch_may_be_left_out_of_training(build_model):
    model = build_model(aux_head=None).train()
    assert set(model([sample()])) == {"loss_qfl", "loss_bbox", "loss_dfl"}


def test_frozen_norms_keep_their_statistics(build_model):
    model = build_model(freeze_norm=True).train()
    before = {k: v.clone() for k, v in model.named_buffers()}
    batch = [sample(), sample()]
    losses = model(batch)
    sum(losses.values()).backward()
    assert all(torch.equal(v, before[k]) for k, v in model.named_buffers())
    # So an image's predictions do not depend on the batch it is in.
    images = model.preprocess_image(batch).tensor
    together = model.head(model.neck(model.backbone(images)))[:1]
    alone = model.head(model.neck(model.backbone(images[:1])))
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)
    norm = next(m for m in model.neck.modules() if isinstance(m, torch.nn.BatchNorm2d))
    assert norm.weight.grad is not None and model.training and model.eval().train().training


@pytest.mark.parametrize("batch", [[EMPTY, EMPTY], [EMPTY, {}]])
def test_images_and_batches_without_boxes_train(build_model, batch):
    model = build_model().train()
    losses = model([sample(**x) for x in batch])
    sum(losses.values()).backward()
    assert all(torch.isfinite(x) for x in losses.values())
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    assert float(losses["loss_qfl"]) > 0
    if all(x is EMPTY for x in batch):
        assert float(losses["loss_bbox"]) == float(losses["loss_dfl"]) == 0


def test_float_and_uint8_images_are_the_same(build_model):
    model = build_model().eval()
    x = sample()
    as_float = {**x, "image": x["image"].float()}
    a, b = (model.preprocess_image([y]).tensor for y in (x, as_float))
    assert torch.equal(a, b)
    expected = (x["image"][0].float() - 103.53) / 57.375
    torch.testing.assert_close(a[0, 0], expected)


def test_channels_of_the_other_order_are_flipped(build_model):
    model = build_model(input_format="RGB").eval()
    x = sample()["image"]
    expected = build_model().preprocess_image([{"image": x.flip(0)}]).tensor
    assert torch.equal(model.preprocess_image([{"image": x}]).tensor, expected)


def test_light_auxiliary_head_is_a_fraction_of_the_full_one(build_model):
    full = build_model(aux_head=partial(SimpleConvHead))
    light = build_model(aux_head=partial(SimpleConvHead, use_depthwise=True))
    count = {m: sum(p.numel() for p in m.aux_head.parameters()) for m in (full, light)}
    assert count[light] < 0.25 * count[full]
    assert all(gradients(light, 0).values())


@pytest.mark.parametrize("height, width", [(64, 64), (50, 70), (33, 31)])
def test_any_size_is_padded_with_the_mean(build_model, height, width):
    model = build_model()
    images = model.preprocess_image([sample(height, width), sample(32, 40)])
    assert images.tensor.shape[-2] % 32 == 0 and images.tensor.shape[-1] % 32 == 0
    assert (images.tensor[0, :, height:] == 0).all() and (images.tensor[0, :, :, width:] == 0).all()
    losses = model.train()([sample(height, width), sample(32, 40, boxes=((1, 1, 30, 30),))])
    assert all(torch.isfinite(x) for x in losses.values())


def test_results_are_in_the_pixels_asked_for(build_model):
    model = build_model(score_thresh=0.0).eval()
    image = {"image": sample(64, 64)["image"], "height": 128, "width": 32}
    with torch.no_grad():
        small = model([{"image": image["image"]}])[0]["instances"]
        large = model([image])[0]["instances"]
    assert large.image_size == (128, 32) and len(large) > 0
    scale = torch.tensor([0.5, 2.0, 0.5, 2.0])
    count = min(len(small), len(large))
    torch.testing.assert_close(
        large.pred_boxes.tensor[:count], small.pred_boxes.tensor[:count] * scale
    )


def test_a_batch_is_its_images(build_model):
    """Also where one of them has no detection."""
    model = build_model(score_thresh=0.0).eval()
    for predictor in model.head.predictors:
        torch.nn.init.normal_(predictor.weight)
    images = [sample(64, 96)["image"], torch.zeros(3, 64, 96), sample(64, 96)["image"]]
    with torch.no_grad():
        best = [float(model([{"image": x}])[0]["instances"].scores.max()) for x in images]
        model.select["score_thresh"] = sorted(best)[0]
        alone = [model([{"image": x}])[0]["instances"] for x in images]
        together = [x["instances"] for x in model([{"image": x} for x in images])]
    assert len({len(x) for x in alone}) > 1
    for a, b in zip(alone, together):
        torch.testing.assert_close(a.scores, b.scores)
        torch.testing.assert_close(a.pred_boxes.tensor, b.pred_boxes.tensor)
        assert torch.equal(a.pred_classes, b.pred_classes)


def test_no_detection_is_an_empty_result(build_model):
    model = build_model(score_thresh=0.999).eval()
    found = model([{"image": sample()["image"]}])[0]["instances"]
    assert len(found) == 0 and found.pred_boxes.tensor.shape == (0, 4)


def test_ignore_boxes_reach_the_assigner(build_model):
    model = build_model(aux_head=None).train()
    model.head.assigner.ignore_iof_thr = 0.1
    whole = Boxes(torch.tensor([[0.0, 0.0, 96.0, 96.0]]))
    x = sample(**EMPTY)
    background = float(model([x])["loss_qfl"])
    model = build_model(aux_head=None).train()
    model.head.assigner.ignore_iof_thr = 0.1
    assert float(model([{**x, "ignore_boxes": whole}])["loss_qfl"]) < 0.5 * background


def test_wrong_input_is_named(build_model):
    model = build_model(num_classes=2)
    with pytest.raises(
        ValueError, match=r"image a.jpg has class 7; allowed by num_classes: 0 to 1"
    ):
        model.train()([sample(classes=(7,), file_name="a.jpg")])
    with pytest.raises(ValueError, match=r"\(1, 8, 8\); allowed: \(3, height, width\)"):
        model([{"image": torch.zeros(1, 8, 8)}])
    with pytest.raises(ValueError, match="aux_after_detach 'stop'; allowed"):
        build_model(aux_after_detach="stop")


def test_losses_are_float32_under_autocast(build_model):
    model = build_model().train()
    batch = [sample(), sample(boxes=((4, 4, 60, 60), (20, 10, 30, 40)), classes=(0, 2))]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pyramid = model.neck(model.backbone(model.preprocess_image(batch).tensor))
        raw, priors = model.head(pyramid), model.head.priors(pyramid)
        assert raw.dtype == torch.bfloat16
        mixed = model.head.losses(raw, priors, model.ground_truth(batch))
    exact = model.head.losses(raw.float(), priors, model.ground_truth(batch))
    assert all(torch.equal(mixed[name], exact[name]) for name in exact)
    assert all(x.dtype == torch.float32 for x in mixed.values())


# What is compiled without the branch is a part of what is compiled with it, backward pass included.
@pytest.mark.parametrize(
    "branch, backend",
    [pytest.param("with", "aot_eager", marks=pytest.mark.slow), ("without", "eager")],
)
def test_losses_compile_to_one_graph(build_model, branch, backend):
    model = build_model(aux_head=None) if branch == "without" else build_model()
    model.train()
    compiled = torch.compile(model.head.losses, fullgraph=True, backend=backend)
    for batch in (
        [sample(), sample(**EMPTY)],
        [sample(boxes=((1, 1, 9, 9),) * 5, classes=[0] * 5)],
    ):
        features = model.backbone(model.preprocess_image(batch).tensor)
        pyramid = model.neck(features)
        raw, priors = model.head(pyramid), model.head.priors(pyramid)
        aux_raw = model.auxiliary_forward(features, pyramid)
        truth = model.ground_truth(batch)
        expected = model.head.losses(raw, priors, truth, aux_raw)
        found = compiled(raw, priors, truth, aux_raw)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)
        gradients = [torch.autograd.grad(sum(x.values()), [raw])[0] for x in (found, expected)]
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)


@pytest.mark.slow
def test_a_compiled_model_trains_and_keeps_its_names(build_model):
    backbone = ShuffleNetV2("0.5x", out_features=("res3",))  # there is less to compile
    build = partial(build_model, backbone=backbone)
    model = build().train()
    names = list(model.state_dict())
    expected = model([sample()])
    model = build().train()
    model.compile(backend="eager")
    torch.manual_seed(1)
    found = model([sample()])
    assert set(found) == set(expected) and list(model.state_dict()) == names
    sum(found.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
