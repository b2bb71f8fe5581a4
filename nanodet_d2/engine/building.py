"""Model and optimiser of a config, as a training has them, and what its checkpoints say of them."""

from __future__ import annotations

import contextlib
import os
from typing import Any, TypeVar

import torch
from detectron2.config import instantiate
from detectron2.engine import create_ddp_model
from omegaconf import DictConfig, OmegaConf
from torch import nn

from nanodet_d2 import __version__
from nanodet_d2.checkpoint import Card
from nanodet_d2.checkpoint.config_text import config_to_json
from nanodet_d2.data.registered import import_user_code
from nanodet_d2.data.splits import names_for_model
from nanodet_d2.modeling import NanoDetPlus
from nanodet_d2.modeling.backbone import without_pretrained_weights

_Model = TypeVar("_Model", bound=nn.Module)


def uses_gpu(cfg: DictConfig) -> bool:
    return str(cfg.train.device).startswith("cuda")


def build_model(cfg: DictConfig, *, checkpoint_follows: bool = False) -> NanoDetPlus:
    """The config's model on its device, in its memory layout.

    Args:
        checkpoint_follows: a checkpoint will be loaded over all of it, so no backbone's pretrained
            weights are fetched.
    """
    import_user_code(cfg.get("data"))  # its parts, or the loaders', may come from there
    context = without_pretrained_weights() if checkpoint_follows else contextlib.nullcontext()
    with context:
        model = instantiate(cfg.model).to(cfg.train.device)
    return with_channels_last(model) if cfg.train.channels_last else model


def with_channels_last(model: _Model) -> _Model:
    """The model with its convolutions in channels_last: they take the layout of their weights.

    All but those of 1 x 1 with a stride and few channels, as in the stem of RepVGG: on CPUs their
    backward pass writes beyond its memory in that layout (seen with torch 2.15, one to eight
    channels, an even size of the image), which ends the process sooner or later.
    """
    model = model.to(memory_format=torch.channels_last)
    for m in model.modules():
        if isinstance(m, nn.Conv2d) and _overruns(m):
            m.weight.data = m.weight.data.clone(memory_format=torch.contiguous_format)
    return model


def _overruns(conv: nn.Conv2d) -> bool:
    return tuple(conv.kernel_size) == (1, 1) and max(conv.stride) > 1 and conv.in_channels <= 8


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


def describe(cfg: DictConfig, model: NanoDetPlus) -> Card:
    """The card of a training's checkpoints.

    Its config lists the classes, so that the data set need not be there to use the model.
    """
    data = cfg.get("data")
    names = [str(x) for x in names_for_model(data, model.head.num_classes)]
    size = data.get("input_size") if data is not None else None
    config: Any = OmegaConf.to_container(cfg, resolve=False)
    if data is not None:
        config["data"]["classes"] = names
    return Card(
        name=os.path.basename(os.path.abspath(cfg.train.output_dir)).lstrip(".") or "model",
        class_names=tuple(names),
        input_size=(int(size[0]), int(size[1])) if size else None,
        config=config_to_json(config),
        version=__version__,
    )
