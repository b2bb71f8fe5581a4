"""Small models to export, and skips."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate

from nanodet_d2.config import apply_overrides

CONFIGS = Path(__file__).resolve().parents[2] / "projects" / "nanodet_plus" / "configs"
SMALL = "demo_shapes.py"


def require(*packages: str) -> None:
    """Skip where an optional package is not installed."""
    for name in packages:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed: pip install nanodet-d2[export]")


def random_state(config: str, overrides: Sequence[str]) -> dict[str, torch.Tensor]:
    """Weights of a config's model with some scores on both sides of the threshold."""
    torch.manual_seed(0)
    cfg = apply_overrides(LazyConfig.load(str(CONFIGS / config)), overrides)
    if cfg.model.backbone.get("pretrained"):
        cfg.model.backbone.pretrained = False  # nothing is fetched in tests
    model = instantiate(cfg.model).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # takes the statistics of the one batch below
    model.train()
    with torch.no_grad():
        model.head(model.neck(model.backbone(torch.randn(4, 3, 128, 128))))
    model.eval()
    for predictor in model.head.predictors:
        for conv in predictor.modules():
            if isinstance(conv, torch.nn.Conv2d):
                torch.nn.init.normal_(conv.weight, std=0.05)
                torch.nn.init.uniform_(conv.bias, -4, -2)
    return model.state_dict()
