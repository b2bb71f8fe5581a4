"""Model and optimiser of a config, as a training has them."""

from __future__ import annotations

import torch
from detectron2.config import instantiate
from detectron2.engine import create_ddp_model
from omegaconf import DictConfig
from torch import nn


def uses_gpu(cfg: DictConfig) -> bool:
    return str(cfg.train.device).startswith("cuda")


def build_model(cfg: DictConfig) -> nn.Module:
    """The config's model on its device, in its memory layout."""
    model = instantiate(cfg.model).to(cfg.train.device)
    if cfg.train.channels_last:  # convolutions take the layout of their weights
        model = model.to(memory_format=torch.channels_last)
    return model


def build_optimizer_of(cfg: DictConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The config's optimiser for a model; the config stays as it is, so that it can be saved."""
    cfg.optimizer.params.model = model
    try:
        return instantiate(cfg.optimizer)
    finally:
        del cfg.optimizer.params.model


def distribute(cfg: DictConfig, model: nn.Module) -> nn.Module:
    """The model in torch's distributed wrapper, or as it is in a process alone."""
    # detectron2 would name the GPU, and torch's wrapper then move the images to it one by one.
    return create_ddp_model(model, device_ids=None, **cfg.train.ddp)
