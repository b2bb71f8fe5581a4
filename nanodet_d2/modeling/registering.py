"""detectron2's registries, and what may be built from them."""

from __future__ import annotations

from typing import Any, Callable, TypeVar

from detectron2.config import configurable
from fvcore.common.registry import Registry

C = TypeVar("C", bound=type)


def register(registry: Registry) -> Callable[[C], C]:
    """Class decorator: ``registry.get(name)`` finds the class, to be built by its arguments.

    ``build_model(cfg)`` and ``build_backbone(cfg)``, which call what they find with a yacs config,
    get a ``ValueError``: there are no keys for the arguments in one.
    """

    def decorate(cls: Any) -> Any:
        cls.from_config = classmethod(_refuse)
        cls.__init__ = configurable(cls.__init__)
        registry.register(cls)
        return cls

    return decorate


def _refuse(cls: type, cfg: Any, *_: Any, **__: Any) -> dict[str, Any]:
    raise ValueError(
        f"{cls.__name__} cannot be built from a yacs config; allowed: its own arguments, as in a "
        f"lazy config, LazyCall({cls.__name__})(…)"
    )
