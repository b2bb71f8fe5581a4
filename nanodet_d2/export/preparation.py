"""Does a config prepare its test images as an exported file will?

The file, and PyTorch beside it, stretch an image to the input size, or fit it into that. Where the
config's evaluation does something else, both would agree with each other, and neither with the
evaluation.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.utils.registry import locate
from omegaconf import DictConfig, OmegaConf

from nanodet_d2.checkpoint.config_text import TARGET
from nanodet_d2.data import DetectionMapper, RandomWarp
from nanodet_d2.runtime.metadata import FIT, STRETCH

ALLOWED = (
    "allowed for an export: a DetectionMapper whose only augmentation is "
    "RandomWarp(size=data.input_size), which stretches images to the input size, or fits them into "
    "it with keep_ratio=True"
)


def check_preparation(cfg: DictConfig, input_size: Sequence[int] | None) -> str:
    """Refuse a config whose evaluation does not merely stretch or fit images to the input size.

    A config without a ``dataloader.test.mapper`` says nothing of it, and is accepted.

    Args:
        input_size: (height, width) that the user asks for in place of the config's.

    Returns:
        which of both it does, as in ``InputDescription.resize``.

    Raises:
        ValueError: naming what the config does, and what is allowed.
    """
    mapper: Any = OmegaConf.select(cfg, "dataloader.test.mapper")
    if mapper is None:
        return STRETCH
    if OmegaConf.is_config(mapper):
        mapper = OmegaConf.to_container(mapper, resolve=True)
    wanted = input_size or list(cfg.data.input_size)
    order = OmegaConf.select(cfg, "model.input_format", default="BGR")
    found = _reads_otherwise(mapper, order)
    found = found or _warps_otherwise(mapper, wanted, any_size=input_size is not None)
    if found:
        raise ValueError(f"the config's evaluation (dataloader.test.mapper) {found}; {ALLOWED}")
    return FIT if mapper["augmentations"][0].get("keep_ratio") else STRETCH


def _reads_otherwise(mapper: Any, order: str) -> str:
    """How a mapper, as plain values, reads images in another way; empty if it does not."""
    if not isinstance(mapper, Mapping) or _target(mapper) is not DetectionMapper:
        return f"prepares images by {_name(mapper)}"
    if mapper.get("reduced_jpeg"):
        return "has reduced_jpeg=True"
    read = mapper.get("image_format", "BGR")
    return f"reads {read} images for a model that takes {order}" if read != order else ""


def _warps_otherwise(mapper: Mapping[str, Any], wanted: Sequence[int], *, any_size: bool) -> str:
    """What a mapper does to images beside bringing them to a size; empty if nothing."""
    augmentations = list(mapper.get("augmentations") or ())
    if len(augmentations) != 1 or _target(augmentations[0]) is not RandomWarp:
        names = ", ".join(map(_name, augmentations)) or "none, so that images stay as they are"
        return f"has the augmentations {names}"
    warp = augmentations[0]
    defaults = {k: x.default for k, x in inspect.signature(RandomWarp).parameters.items()}
    for name, value in warp.items():
        if name not in (TARGET, "size", "keep_ratio") and _tuples(value) != defaults.get(name):
            return f"has RandomWarp with {name}={value}"
    if not any_size and list(warp["size"]) != list(wanted):
        return f"brings images to {list(warp['size'])}, and data.input_size is {list(wanted)}"
    return ""


def _target(node: Any) -> Any:
    target = node.get(TARGET) if isinstance(node, Mapping) else None
    return locate(target) if isinstance(target, str) else target


def _name(value: Any) -> str:
    target = value.get(TARGET) if isinstance(value, Mapping) else type(value)
    return target if isinstance(target, str) else getattr(target, "__qualname__", repr(target))


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value
