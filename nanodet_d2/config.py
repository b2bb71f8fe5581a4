"""Helpers around detectron2's lazy configs."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Callable

from detectron2.config import LazyCall, LazyConfig
from detectron2.utils.registry import _convert_target_to_string, locate
from omegaconf import DictConfig, ListConfig

_PACKAGE = Path(__file__).resolve().parent


def shipped_configs() -> dict[str, Path]:
    """Name -> path of the configs that come with the package.

    A wheel holds them as they are named, ``common/train.py`` and ``<project>/<config>.py``; in the
    source tree a project's lie in ``projects/<project>/configs``.
    """
    if (_PACKAGE / "configs").is_dir():
        return _python_files(_PACKAGE / "configs")
    found = _python_files(_PACKAGE.parent / "configs")
    for folder in sorted(_PACKAGE.parent.glob("projects/*/configs")):
        project = folder.parent.name
        found.update({f"{project}/{name}": path for name, path in _python_files(folder).items()})
    return found


def _python_files(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*.py"))}


def config_path(name: str) -> Path:
    """Path of a config that ships with the package.

    Raises:
        ValueError: if there is none of that name; the message lists those there are.
    """
    shipped = shipped_configs()
    if name not in shipped:
        raise ValueError(f"no config {name!r}; there are: {', '.join(shipped) or 'none'}")
    return shipped[name]


def get_config(name: str) -> DictConfig:
    """Load a config that ships with the package.

    Raises:
        ValueError: as :func:`config_path`.

    Example:
        >>> from detectron2.config import instantiate
        >>> from nanodet_d2.config import get_config
        >>> config = get_config("nanodet_plus/nanodet_plus_m_416.py")
        >>> config.data.classes = ["cat", "dog"]
        >>> model = instantiate(config.model)
    """
    return LazyConfig.load(str(config_path(name)))


class LazyPartial:
    """Like ``LazyCall``, for a part whose parent supplies the remaining arguments.

    ``model.neck = LazyPartial(GhostPAN)(out_channels=96)`` makes a config node which instantiates
    to ``functools.partial(GhostPAN, out_channels=96)``; the meta-architecture adds
    ``input_shapes``.

    Args:
        constructor: a class or function that can be imported by its name.

    Example:
        >>> from nanodet_d2.config import LazyPartial, get_config
        >>> from nanodet_d2.modeling import PAN
        >>> config = get_config("nanodet_plus/nanodet_plus_m_416.py")
        >>> config.model.neck = LazyPartial(PAN)(out_channels=96)
    """

    def __init__(self, constructor: Callable[..., Any]):
        self.constructor = _convert_target_to_string(constructor)

    def __call__(self, **arguments: Any) -> DictConfig:
        return LazyCall(bind)(constructor=self.constructor, **arguments)


def bind(*, constructor: str, **arguments: Any) -> functools.partial:
    """What a :class:`LazyPartial` node instantiates to.

    Raises:
        ValueError: for an argument that the constructor does not take.
    """
    target = locate(constructor)
    for name in arguments:
        _require_known(name, _parameters(target), where=constructor)
    return functools.partial(target, **arguments)


def apply_overrides(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """``LazyConfig.apply_overrides``, which refuses keys that nothing reads.

    A key has to be in the config already, or to be an argument of the callable it belongs to.
    ``+key=value`` adds one on purpose.

    Raises:
        ValueError: for an override that is not ``key=value``, or an unknown key.

    Example:
        >>> from nanodet_d2.config import apply_overrides, get_config
        >>> config = get_config("nanodet_plus/finetune_416.py")
        >>> config = apply_overrides(config, ["data.source=my_data", "train.minutes=5"])
    """
    for override in overrides:
        key, equals, _ = override.partition("=")
        if not equals:
            hint = "; options come before overrides" if override.startswith("--") else ""
            raise ValueError(
                f"override {override!r}; allowed: key=value, e.g. train.max_iter=1000{hint}"
            )
        if not key.startswith("+"):
            _require_key(cfg, key)
    return LazyConfig.apply_overrides(cfg, list(overrides))


def refuse_unknown_train_keys(cfg: DictConfig) -> None:
    """Raise ``ValueError`` for a key of ``cfg.train`` that ``common/train.py`` does not have.

    Nothing else would notice a mistyped one, because ``train`` is not the arguments of a callable.
    """
    _refuse_unknown(cfg.train, get_config("common/train.py").train, "train")


def _refuse_unknown(section: Mapping[str, Any], known: Mapping[str, Any], where: str) -> None:
    for name, value in section.items():
        _require_known(name, known, where=where)
        if isinstance(value, Mapping) and isinstance(known[name], Mapping):
            _refuse_unknown(value, known[name], f"{where}.{name}")


def _require_key(cfg: DictConfig, key: str) -> None:
    node: Any = cfg
    parts = key.split(".")
    for i, part in enumerate(parts):
        where = ".".join(parts[:i]) or "the config"
        if isinstance(node, ListConfig):
            _require_known(part, [str(j) for j in range(len(node))], where=where)
            node = node[int(part)]
            continue
        if not isinstance(node, DictConfig):
            raise ValueError(f"config key {key!r}: {where} is {node!r} and has no keys")
        known = list(node)
        if "_target_" in node:
            target = node.get("constructor", node["_target_"])
            known += _parameters(locate(target) if isinstance(target, str) else target)
        _require_known(part, known, where=where)
        if part not in node and i + 1 < len(parts):
            raise ValueError(f"config key {key!r}: {where}.{part} is not set and has no keys yet")
        node = node.get(part)


def _require_known(name: str, known: Iterable[str], *, where: str) -> None:
    known = [k for k in known if not k.startswith("_")]
    if name in known or _ANYTHING in known:
        return
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"{where} has no {name!r}{hint} Allowed: {', '.join(known)}")


_ANYTHING = "**"  # in a list of parameters: the callable takes any keyword


def _parameters(target: Callable) -> list[str]:
    parameters = inspect.signature(target).parameters.values()
    return [_ANYTHING if p.kind is p.VAR_KEYWORD else p.name for p in parameters]
