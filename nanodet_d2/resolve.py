"""What a model is meant by: a name of the zoo, a config, or a checkpoint that knows its own.

Configs, ``.py`` and ``.yaml``, are programs: run only those that you trust. A checkpoint is read
without running anything, and the config on its card may name parts, not programs; the rule stands
in ``nanodet_d2.checkpoint.targets``.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from detectron2.config import LazyConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nanodet_d2 import zoo
from nanodet_d2.checkpoint import read_card
from nanodet_d2.checkpoint.config_text import config_from_json
from nanodet_d2.checkpoint.fetching import suffix_of
from nanodet_d2.checkpoint.targets import UntrustedTarget, require_parts
from nanodet_d2.config import apply_overrides, shipped_configs
from nanodet_d2.data.registered import import_user_code

logger = logging.getLogger(__name__)

CONFIGS = (".py", ".yaml", ".yml")
CHECKPOINTS = (".pth", ".ckpt", ".safetensors")
_WRITTEN = "config.yaml"  # a training writes it to its output folder, whose name is the run's
_NEEDED = ("model", "data")  # sections without which there is no model


@dataclasses.dataclass(frozen=True)
class ModelSource:
    """A config, and what is known of its weights.

    Attributes:
        cfg: the config with the overrides.
        name: of the model: that of the zoo, or of a config's file, or of a training's folder.
        config_file: that was read; None for a checkpoint.
        checkpoint: path or URL of the weights that belong to it; None for a config.
        official: whether it is of the zoo, which has the weights.
        version: of the nanodet_d2 that trained a checkpoint.
    """

    cfg: DictConfig
    name: str
    config_file: str | None = None
    checkpoint: str | None = None
    official: bool = False
    version: str | None = None

    def weights(self) -> str:
        """Path or URL of its own weights; those of the zoo are fetched where they are not there.

        Raises:
            ValueError: for a config, which has none, or for weights that cannot be fetched.
        """
        if self.official:
            return zoo.weights(self.name)
        if self.checkpoint is None:
            raise ValueError(f"{self.config_file} is a config and needs weights, a checkpoint")
        return self.checkpoint


def is_source(text: str) -> bool:
    """Whether :func:`resolve` is for such a name; the file need not be there."""
    return text in zoo.names() or suffix_of(text) in CONFIGS + CHECKPOINTS


def resolve(source: str, overrides: Sequence[str] = (), *, trust: bool = False) -> ModelSource:
    """The config that a name stands for; what ``data.imports`` lists is imported.

    Args:
        source: a name of the zoo; path of a config (``.py``, or the ``config.yaml`` that a training
            wrote); name of a config that ships with the package; or path or URL of a checkpoint
            that a training wrote (``.pth``, ``.safetensors``).
        overrides: ``key=value`` of the config. ``data.imports=[…]`` also says that a checkpoint's
            card may name code of these modules.
        trust: let a checkpoint's card name any code, and import what it lists itself.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a file of another kind, a checkpoint without a card, a card that names code
            which it may not name, or a wrong override.
    """
    if source in zoo.names():
        file = str(zoo.entry(source).config_file)
        return ModelSource(_load(file, overrides), source, config_file=file, official=True)
    suffix = suffix_of(source)
    if suffix in CHECKPOINTS:
        return _of_checkpoint(source, overrides, trust=trust)
    if suffix not in CONFIGS:
        raise ValueError(
            f"{source} is no model: allowed are *{', *'.join(CONFIGS + CHECKPOINTS)}, and the "
            f"names {', '.join(zoo.names())}"
        )
    path = Path(source)
    if not path.is_file():
        shipped = shipped_configs()
        if source not in shipped:
            raise FileNotFoundError(f"config {source} not found")
        path = shipped[source]
    name = path.resolve().parent.name if path.name == _WRITTEN else path.stem
    return ModelSource(_load(str(path), overrides), name, config_file=str(path))


def _load(path: str, overrides: Sequence[str]) -> DictConfig:
    cfg = apply_overrides(LazyConfig.load(path), overrides)
    import_user_code(cfg.get("data"))
    return cfg


def _of_checkpoint(source: str, overrides: Sequence[str], *, trust: bool) -> ModelSource:
    card = read_card(source)
    if card is None:
        raise ValueError(
            f"checkpoint {source} does not tell what model it is of (only those that nanodet_d2 "
            "trained do): give its config as well"
        )
    try:
        cfg = config_from_json(card.config)
        if not trust:
            _keep_parts(cfg, source, trusted=_imports(overrides))
    except ValueError as error:
        raise ValueError(f"{error}; or give the config of {source} as well") from error
    missing = [name for name in _NEEDED if name not in cfg]
    if missing:
        raise ValueError(f"{source} does not tell its {missing[0]!r}: give its config as well")
    _move_here(cfg, source, card.name)
    cfg = apply_overrides(cfg, overrides)
    import_user_code(cfg.data)
    return ModelSource(cfg, card.name, checkpoint=source, version=card.version)


def _imports(overrides: Sequence[str]) -> list[str]:
    """The modules that the user lists."""
    given = [x for x in overrides if x.lstrip("+").startswith("data.imports=")]
    cfg = LazyConfig.apply_overrides(OmegaConf.create({"data": {"imports": []}}), given)
    return list(cfg.data.imports or ())


def _keep_parts(cfg: DictConfig, source: str, *, trusted: Sequence[str]) -> None:
    """Drop, in place, what names code that is no part; refuse it where the model needs it."""
    if OmegaConf.select(cfg, "data.imports"):
        cfg.data.imports = []
    for section in list(cfg):
        try:
            value = cfg[section]
            if OmegaConf.is_config(value):
                value = OmegaConf.to_container(value, resolve=True)
            require_parts(value, source, trusted=trusted)
        except (UntrustedTarget, OmegaConfBaseException) as error:
            if section in _NEEDED:
                raise ValueError(str(error)) from error
            del cfg[section]
            logger.warning("The config's %r is left out: %s", section, error)


def _move_here(cfg: DictConfig, source: str, name: str) -> None:
    """Take the training's own device and folders out of a card's config, in place."""
    if "train" in cfg:
        cfg.train.device = "cuda" if torch.cuda.is_available() else "cpu"
        cfg.train.output_dir = f"./output/{name}"
        cfg.train.init_checkpoint = source
