"""A config as text, which a checkpoint can carry and which is read without running anything."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from detectron2.utils.registry import _convert_target_to_string, locate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

logger = logging.getLogger(__name__)

TARGET = "_target_"  # detectron2's key of what a config node calls


def config_to_json(cfg: Mapping[str, Any]) -> str:
    """A config, or its container, as json; classes and functions go by their names.

    References such as ``${data.input_size}`` stay. A section with something that text cannot hold,
    e.g. a function without a name, is left out with a warning.
    """
    content: Any = OmegaConf.to_container(cfg, resolve=False) if OmegaConf.is_config(cfg) else cfg
    kept: dict[str, Any] = {}
    for section, value in content.items():
        try:
            kept[section] = _plain(value, section)
        except ValueError as error:
            logger.warning("Checkpoints will not tell the config's %r: %s", section, error)
    return json.dumps(kept, indent=1, ensure_ascii=False)


def config_from_json(text: str) -> DictConfig:
    """The config that :func:`config_to_json` wrote. Nothing that it names is run or imported.

    Raises:
        ValueError: if it is no such text.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the config is not json: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"the config is {content!r:.80}; allowed: a json object")
    try:
        return OmegaConf.create(content, flags={"allow_objects": True})
    except OmegaConfBaseException as error:  # a reference that is none
        raise ValueError(f"the config cannot be read: {' '.join(str(error).split())}") from error


def named(*, name: str) -> Any:
    """The class or function of a dotted name: how one that is a value, not a call, is written."""
    return locate(name)


def _plain(value: Any, key: str) -> Any:
    """A config's value as json has it."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(x, f"{key}.{i}") for i, x in enumerate(value)]
    if not isinstance(value, dict):
        return {TARGET: f"{__name__}.{named.__name__}", "name": _name(value, key)}
    wrong = [name for name in value if not isinstance(name, str)]
    if wrong:
        raise ValueError(f"{key} has the key {wrong[0]!r}, which is no text")
    target = value.get(TARGET)
    if target is not None and not isinstance(target, (str, dict)):
        value = {**value, TARGET: _name(target, f"{key}.{TARGET}")}
    return {name: _plain(x, f"{key}.{name}") for name, x in value.items()}


def _name(value: Any, key: str) -> str:
    """The dotted name by which a class or function can be found again."""
    name = getattr(value, "__qualname__", "<")
    if not hasattr(value, "__module__") or "<" in name:  # <lambda>, <locals>, no such thing
        raise ValueError(f"{key} is {value!r:.80}, which cannot be found by a name")
    return _convert_target_to_string(value)
