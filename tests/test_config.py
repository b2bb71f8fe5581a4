"""Config helpers and every shipped config."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, instantiate
from detectron2.structures import Boxes, Instances

from nanodet_d2.config import (
    LazyPartial,
    apply_overrides,
    bind,
    get_config,
    refuse_unknown_train_keys,
    shipped_configs,
)
from nanodet_d2.modeling import GhostPAN, NanoDetPlusHead, ShuffleNetV2
from nanodet_d2.resolve import resolve

PROJECTS = Path(__file__).resolve().parents[1] / "projects"
CONFIGS = [
    "nanodet_plus_m_320",
    "nanodet_plus_m_416",
    "nanodet_plus_m_1_5x_320",
    "nanodet_plus_m_1_5x_416",
    "nanodet_plus_ghostnet_416",
    "nanodet_plus_timm_mobilenetv3_320",
    "nanodet_plus_timm_vit_tiny_416",
    "nanodet_plus_torchvision_efficientnet_b0_416",
    "nanodet_plus_r50_416",
    "nanodet_plus_r50_dc5_416",
    "demo_shapes",
    "finetune_320",
    "finetune_416",
    "finetune_1_5x_320",
    "finetune_1_5x_416",
]
BACKBONE_CONFIGS = [x for x in CONFIGS if not x.startswith(("demo", "finetune", "nanodet_plus_m"))]


@pytest.fixture
def load(root):
    folder = root / "projects" / "nanodet_plus" / "configs"
    return lambda name: LazyConfig.load(str(folder / f"{name}.py"))


def test_no_config_is_forgotten(root):
    files = (root / "projects" / "nanodet_plus" / "configs").glob("*.py")
    assert {f.stem for f in files} == {*CONFIGS, "base"}


LARGE = ("nanodet_plus_r50_416", "nanodet_plus_r50_dc5_416")  # seconds each


@pytest.mark.parametrize(
    "name",
    [pytest.param(x, marks=[pytest.mark.slow] if x in LARGE else []) for x in CONFIGS],
)
def test_shipped_config_trains_and_infers(load, name, shapes_overrides):
    """A step on smaller images, which is faster; detections in one of the config's size."""
    cfg = apply_overrides(load(name), [*shapes_overrides, "dataloader.train.num_workers=0"])
    small = apply_overrides(load(name), [*shapes_overrides, "data.input_size=[96,128]"])
    refuse_unknown_train_keys(cfg)
    if "pretrained" in cfg.model.backbone:
        cfg.model.backbone.pretrained = False  # weights come over the network
    model = instantiate(cfg.model)
    classes = cfg.model.head.num_classes
    assert instantiate(classes) == model.head.num_classes == 7
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)

    records = list(instantiate(cfg.dataloader.train.dataset))[:2]
    batches = []
    for x in (cfg, small):
        mapper = instantiate(x.dataloader.train.mapper)
        batch = [mapper(record) for record in records]
        assert all(sample["image"].shape == (3, *x.data.input_size) for sample in batch)
        batches.append(batch)
    before = model.head.predictors[0].weight.clone()
    losses = model.train()(batches[1])
    sum(losses.values()).backward()
    optimizer.step()
    assert not torch.equal(before, model.head.predictors[0].weight)

    test_mapper = instantiate(cfg.dataloader.test.mapper)
    with torch.no_grad():
        (result,) = model.eval()([test_mapper(records[0])])
    assert result["instances"].image_size == (96, 96)


@pytest.mark.parametrize(
    "name, size, parameters",
    [
        ("nanodet_plus_m_320", 320, (1_197_924, 4_330_904)),
        ("nanodet_plus_m_416", 416, (1_197_924, 4_330_904)),
        ("nanodet_plus_m_1_5x_320", 320, (2_477_792, 7_962_196)),
        ("nanodet_plus_m_1_5x_416", 416, (2_477_792, 7_962_196)),
    ],
)
def test_shipped_models_have_the_reference_size(load, name, size, parameters):
    cfg = load(name)
    assert list(cfg.data.input_size) == [size, size]
    model = instantiate(cfg.model)
    inference = [p.numel() for n, p in model.named_parameters() if not n.startswith("aux_")]
    assert (sum(inference), sum(p.numel() for p in model.parameters())) == parameters


@pytest.mark.parametrize("name", BACKBONE_CONFIGS)
def test_a_backbone_config_is_a_short_diff(root, name):
    text = (root / "projects" / "nanodet_plus" / "configs" / f"{name}.py").read_text()
    assert sum(bool(line.strip()) for line in text.splitlines()) <= 12
    assert "channels" not in text


LEGACY_CONFIGS = [x.stem for x in sorted((PROJECTS / "nanodet" / "configs").glob("nanodet*.py"))]


@pytest.mark.parametrize("name", LEGACY_CONFIGS)
def test_legacy_config_trains_and_infers(name, shapes_overrides):
    """Images keep their proportions: 320 x 160 within 128 x 96 is 96 x 48, padded to 96 x 64."""
    cfg = apply_overrides(
        get_config(f"nanodet/{name}.py"),
        [*shapes_overrides, "data.input_size=[128,96]", "dataloader.train.num_workers=0"],
    )
    refuse_unknown_train_keys(cfg)
    model = instantiate(cfg.model)
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    schedule = instantiate(cfg.lr_multiplier)
    warm = cfg.lr_multiplier.warmup_iters / cfg.train.max_iter
    factors = [schedule(x) for x in (0, warm, *cfg.lr_multiplier.milestones)]
    steps = [0.1 ** (i + 1) for i in range(len(cfg.lr_multiplier.milestones))]
    assert factors == pytest.approx([cfg.lr_multiplier.warmup_factor, 1, *steps])

    mapper = instantiate(cfg.dataloader.train.mapper)
    batch = [mapper(x) for x in list(instantiate(cfg.dataloader.train.dataset))[:2]]
    assert all(x["image"].shape == (3, 96, 96) for x in batch)
    before = model.head.predictors[0].weight.clone()
    losses = model.train()(batch)
    assert set(losses) == {"loss_qfl", "loss_bbox", "loss_dfl"}
    sum(losses.values()).backward()
    optimizer.step()
    assert not torch.equal(before, model.head.predictors[0].weight)
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)

    test_mapper = instantiate(cfg.dataloader.test.mapper)
    record = {**batch[0], "height": 160, "width": 320, "annotations": []}
    image = np.zeros((160, 320, 3), np.uint8)
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr("nanodet_d2.data.mapper.read_image", lambda *_, **__: image)
        sample = test_mapper(record)
        assert sample["image"].shape == (3, 48, 96)
        (result,) = model.eval()([sample])
    assert result["instances"].image_size == (160, 320)


def test_config_survives_saving(load, tmp_path):
    cfg = load("nanodet_plus_m_320")
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    again = LazyConfig.load(str(tmp_path / "config.yaml"))
    model = instantiate(again.model)
    assert sum(p.numel() for p in model.parameters()) == 4_330_904


def test_shipped_config_by_name():
    assert get_config("common/train.py").train.log_period == 50
    with pytest.raises(ValueError, match="no config 'common/trian.py'; .*common/train.py"):
        get_config("common/trian.py")


def test_a_projects_config_by_name(load):
    cfg = get_config("nanodet_plus/nanodet_plus_m_416.py")
    assert list(cfg.data.input_size) == list(load("nanodet_plus_m_416").data.input_size)
    assert {f"nanodet_plus/{name}.py" for name in CONFIGS} <= set(shipped_configs())
    assert resolve("nanodet_plus/finetune_416.py", ["train.max_iter=3"]).cfg.train.max_iter == 3


def test_partial_waits_for_its_parent():
    node = LazyPartial(GhostPAN)(out_channels=16, num_extra_levels=0)
    node.out_channels = 32
    part = instantiate(node)
    assert isinstance(part, functools.partial) and part.func is GhostPAN
    assert part(ShuffleNetV2("0.5x").output_shape()).output_shape()["p3"].channels == 32


def test_partial_refuses_unknown_arguments():
    with pytest.raises(ValueError, match="no 'out_chanels'; did you mean 'out_channels'"):
        bind(constructor="nanodet_d2.modeling.neck.GhostPAN", out_chanels=3)


@pytest.mark.parametrize(
    "override, message",
    [
        ("train.max_itr=5", "train has no 'max_itr'; did you mean 'max_iter'"),
        (
            "model.neck.out_chanels=5",
            "no 'out_chanels'; did you mean 'out_channels'",
        ),
        ("modle.neck.out_channels=5", "the config has no 'modle'; did you mean 'model'"),
        ("data.train.jsn=a", "data.train has no 'jsn'; did you mean 'json'"),
        ("train.max_iter.x=5", "train.max_iter is .* and has no keys"),
        ("train.max_iter", "allowed: key=value"),
        ("--resume", "options come before overrides"),
        ("dataloader.train.mapper.augmentations.0.flp=1", "has no 'flp'; did you mean 'flip'"),
        ("dataloader.train.mapper.augmentations.7.flip=1", "has no '7'"),
    ],
)
def test_mistyped_overrides_are_refused(load, override, message):
    with pytest.raises(ValueError, match=message):
        apply_overrides(load("nanodet_plus_m_320"), [override])


def test_good_overrides_are_applied(load):
    cfg = apply_overrides(
        load("nanodet_plus_m_320"),
        [
            "train.max_iter=5",
            "model.neck.kernel_size=3",  # an argument that the config leaves at its default
            "model.head.num_classes=4",  # replaces the call that asks the data set
            "dataloader.train.mapper.augmentations.0.flip=0.25",
            "data.input_size=[64,96]",
            "+note=hello",
        ],
    )
    assert cfg.train.max_iter == 5 and cfg.note == "hello"
    model = instantiate(cfg.model)
    assert model.head.num_classes == 4
    assert model.neck.downsamples[0].depthwise.kernel_size == (3, 3)
    mapper = instantiate(cfg.dataloader.train.mapper)
    warp = mapper.augmentations.augs[0]
    assert (warp.flip, tuple(warp.size)) == (0.25, (64, 96))


def test_mistyped_train_keys_in_a_file_are_refused(load):
    cfg = load("nanodet_plus_m_320")
    refuse_unknown_train_keys(cfg)
    cfg.train.ema.enabeld = False
    with pytest.raises(ValueError, match="train.ema has no 'enabeld'; did you mean 'enabled'"):
        refuse_unknown_train_keys(cfg)


def test_parts_are_swapped_by_one_assignment(load):
    cfg = load("nanodet_plus_m_320")
    cfg.model.head.num_classes = 2
    cfg.model.backbone = L(ShuffleNetV2)(size="2.0x")  # 244, 488, 976 channels instead of 116…
    cfg.model.aux_head = None
    model = instantiate(cfg.model).train()
    assert isinstance(model.head, NanoDetPlusHead)
    instances = Instances(
        (128, 128),
        gt_boxes=Boxes(torch.tensor([[10.0, 10.0, 90.0, 90.0]])),
        gt_classes=torch.tensor([1]),
    )
    losses = model([{"image": torch.zeros(3, 128, 128), "instances": instances}])
    assert all(torch.isfinite(x) for x in losses.values())
