"""The ``data`` section of a config for a data set's folder, whose layout is recognised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from omegaconf import OmegaConf

from nanodet_d2.config import apply_overrides, get_config
from nanodet_d2.data.registered import import_user_code


def data_of_folder(
    folder: str, overrides: Sequence[str] = (), *, layout: str | None = None
) -> dict[str, Any]:
    """That of the shipped configs, with the folder as its source.

    Args:
        folder: of the data set, or YOLO's ``data.yaml``.
        overrides: ``data.key=value``.
        layout: as ``data.layout``, which it goes before.

    Raises:
        ValueError: for an override of something else than ``data``.
    """
    for override in overrides:
        if not override.lstrip("+").startswith("data."):
            raise ValueError(f"{override}; allowed for a data set's folder: data.…=…")
    shipped = get_config("common/data/coco.py").data
    cfg = apply_overrides(OmegaConf.create({"data": shipped}), overrides)
    cfg.data.source = folder
    if layout is not None:
        cfg.data.layout = layout
    import_user_code(cfg.data)
    return cast(dict[str, Any], OmegaConf.to_container(cfg.data))
