"""Averaged weights, optimiser and schedule."""

from __future__ import annotations

import math

import pytest
import torch
from detectron2.config import LazyConfig, instantiate

from nanodet_d2.engine import (
    ModelEMA,
    build_optimizer,
    parameter_groups,
    scale_to_batch_size,
    warmup_cosine,
)


def norm_layer(value: float) -> torch.nn.Module:
    layer = torch.nn.BatchNorm1d(2)
    set_state(layer, value)
    return layer


def set_state(layer: torch.nn.Module, value: float) -> None:
    with torch.no_grad():
        for x in layer.state_dict().values():
            x.fill_(value)


def test_average_by_hand():
    layer = norm_layer(1.0)
    ema = ModelEMA(layer, decay=0.9, warmup=10.0)
    expected = 1.0
    for step, value in enumerate([3.0, -2.0, 5.0], start=1):
        set_state(layer, value)
        ema.update(step)
        weight = 1 - 0.9 * (1 - math.exp(-(1 + step) / 10))
        expected = expected * (1 - weight) + value * weight
    state = ema.state_dict()
    for name in ("weight", "bias", "running_mean", "running_var"):
        torch.testing.assert_close(state[name], torch.full((2,), expected))
    assert int(state["num_batches_tracked"]) == 5  # counters follow the model


def test_a_share_stays_at_the_start():
    layer, other = norm_layer(1.0), norm_layer(1.0)
    plain, mixed = ModelEMA(layer, decay=0.9), ModelEMA(other, decay=0.9, start_share=0.25)
    for step, value in enumerate([3.0, -2.0, 5.0], start=1):
        set_state(layer, value)
        set_state(other, value)
        plain.update(step)
        mixed.update(step)
    expected = 0.25 * 1.0 + 0.75 * plain.state_dict()["weight"]
    torch.testing.assert_close(mixed.state_dict()["weight"], expected)
    with pytest.raises(ValueError, match="start_share 1; allowed: 0 <= start_share < 1"):
        ModelEMA(layer, start_share=1)


def test_average_is_applied_for_a_while_only():
    layer = norm_layer(1.0)
    ema = ModelEMA(layer)
    set_state(layer, 4.0)
    with pytest.raises(RuntimeError, match="on purpose"), ema.applied() as model:
        assert float(model.weight[0]) == 1.0
        raise RuntimeError("on purpose")
    assert float(layer.weight[0]) == 4.0 and float(ema.state_dict()["weight"][0]) == 1.0


def test_average_survives_saving():
    ema = ModelEMA(norm_layer(2.0))
    saved = {k: v.clone() for k, v in ema.state_dict().items()}
    other = ModelEMA(norm_layer(7.0))
    other.load_state_dict(saved)
    assert float(other.state_dict()["weight"][0]) == 2.0
    with pytest.raises(ValueError, match="EMA decay 1.0; allowed"):
        ModelEMA(norm_layer(0.0), decay=1.0)


def test_gradients_are_clipped_before_the_step():
    parameter = torch.nn.Parameter(torch.tensor([0.0, 0.0]))
    optimizer = build_optimizer([parameter], optimizer=torch.optim.SGD, clip_grad_norm=5.0, lr=1.0)
    parameter.grad = torch.tensor([30.0, 40.0])
    optimizer.step()
    torch.testing.assert_close(parameter.detach(), torch.tensor([-3.0, -4.0]))
    parameter.grad = torch.tensor([0.3, 0.4])  # below the limit: as it is
    optimizer.step()
    torch.testing.assert_close(parameter.detach(), torch.tensor([-3.3, -4.4]))


def test_optimizer_config_covers_every_parameter(root, build_model):
    cfg = LazyConfig.load(str(root / "configs/common/optim.py")).AdamW
    cfg.params.model = build_model()
    optimizer = instantiate(cfg)
    assert isinstance(optimizer, torch.optim.AdamW) and len(optimizer.param_groups) == 1
    (group,) = optimizer.param_groups
    assert len(group["params"]) == len(list(cfg.params.model.parameters()))
    assert (group["lr"], group["weight_decay"], group["betas"]) == (1e-3, 0.05, (0.9, 0.999))
    with pytest.raises(TypeError, match="leraning_rate"):
        build_optimizer([torch.nn.Parameter(torch.zeros(1))], leraning_rate=1.0)


def test_parameter_groups_of_norms_biases_and_backbone(build_model):
    model = build_model()
    frozen = next(model.backbone.parameters()).requires_grad_(False)
    groups = parameter_groups(
        model, base_lr=0.1, backbone_lr_factor=0.5, weight_decay_norm=0.0, weight_decay_bias=0.0
    )
    where = {id(p): group for group in groups for p in group["params"]}
    assert len(where) == sum(p.requires_grad for p in model.parameters())
    assert id(frozen) not in where
    norm = next(m for m in model.neck.modules() if isinstance(m, torch.nn.BatchNorm2d))
    conv = model.head.predictors[0]
    backbone = next(p for p in model.backbone.parameters() if p.requires_grad and p.dim() == 4)
    found = {
        name: (where[id(p)]["lr"], where[id(p)].get("weight_decay"))
        for name, p in (
            ("norm", norm.weight),
            ("bias", conv.bias),
            ("weight", conv.weight),
            ("backbone", backbone),
        )
    }
    assert found == {
        "norm": (0.1, 0.0),
        "bias": (0.1, 0.0),
        "weight": (0.1, None),
        "backbone": (0.05, None),
    }


@pytest.mark.parametrize("batch, lr, iterations", [(24, 2.5e-4, 369_600 * 4), (96, 1e-3, 369_600)])
def test_schedule_is_fitted_to_the_batch(root, caplog, batch, lr, iterations):
    path = root / "projects" / "nanodet_plus" / "configs" / "nanodet_plus_m_320.py"
    cfg = LazyConfig.load(str(path))
    cfg.dataloader.train.total_batch_size = batch
    scale_to_batch_size(cfg)
    assert cfg.optimizer.lr == 1e-3  # not asked for
    cfg.train.reference_batch_size = 96
    with caplog.at_level("INFO", logger="nanodet_d2"):
        scale_to_batch_size(cfg)
        scale_to_batch_size(cfg)  # once only
    assert (cfg.optimizer.lr, cfg.train.max_iter) == (pytest.approx(lr), iterations)
    assert cfg.optimizer.params.base_lr == cfg.optimizer.lr
    assert cfg.model.aux_detach_iter * 96 == 12_320 * 96 * 96 // batch
    assert cfg.train.ema.settings.decay == pytest.approx(0.9998 ** (batch / 96))
    if batch != 96:
        assert caplog.text.count("Batch of 24 in place of 96: optimizer.lr 0.001 -> 0.00025") == 1


def test_a_smaller_batch_with_the_rate_of_a_large_one_is_named(root, caplog):
    path = root / "projects" / "nanodet_plus" / "configs" / "nanodet_plus_m_320.py"
    cfg = LazyConfig.load(str(path))
    with caplog.at_level("INFO", logger="nanodet_d2"):
        scale_to_batch_size(cfg)
        assert caplog.text == ""
        cfg.dataloader.train.total_batch_size = 24
        scale_to_batch_size(cfg)
    assert "chosen for a batch of 96, with a batch of 24" in caplog.text
    caplog.clear()
    cfg.optimizer.lr = 3e-4  # somebody's choice
    scale_to_batch_size(cfg)
    assert caplog.text == ""


def test_schedule_warms_up_then_falls_along_a_cosine():
    schedule = warmup_cosine(max_iter=10_000, warmup_iters=500, warmup_factor=1e-4, final=0.05)

    def at(iteration):
        return schedule(iteration / 10_000)

    assert at(0) == pytest.approx(1e-4)
    assert at(250) == pytest.approx(0.5 * at(499), rel=0.01)

    def cosine(iteration):
        return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * iteration / 10_000))

    for iteration in (501, 3_000, 5_000, 9_999):
        assert at(iteration) == pytest.approx(cosine(iteration), rel=1e-6)


def test_warm_up_of_a_short_training_is_shortened(caplog):
    schedule = warmup_cosine(max_iter=10, warmup_iters=500)
    assert [schedule(i / 10) for i in range(10)][0] == pytest.approx(1e-4)
    assert schedule(0.9) < 1 and "shortened to 5" in caplog.text
