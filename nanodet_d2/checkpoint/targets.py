"""Which code a file may name that says how its model is built.

The rule: a file's config may name parts, not programs. A part is a class of one of ``PACKAGES``
that derives from one of ``bases()`` (a layer, an optimiser, a schedule, an augmentation, an
evaluator), or one of ``FUNCTIONS``, by the place where it is defined. Everything else is refused
before it is imported, unless the user trusts the module it comes from.

It is not enough to look at the first word of a name: ``torch.os.system`` and ``torch.hub.load`` are
names of torch, too.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.data.transforms import Augmentation, Transform
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils.registry import locate
from fvcore.common.param_scheduler import ParamScheduler
from torch import nn

from .config_text import TARGET

PACKAGES = ("nanodet_d2", "detectron2", "fvcore", "timm", "torchvision", "torch.nn", "torch.optim")
FUNCTIONS = frozenset(
    [
        "nanodet_d2.config.bind",
        "nanodet_d2.checkpoint.config_text.named",
        "nanodet_d2.data.cache.ImageCache",
        "nanodet_d2.data.loader.build_train_loader",
        "nanodet_d2.data.mapper.DetectionMapper",
        "nanodet_d2.data.mixing.CopyPaste",
        "nanodet_d2.data.mixing.MixUp",
        "nanodet_d2.data.mixing.Mosaic",
        "nanodet_d2.data.splits.num_classes",
        "nanodet_d2.data.splits.split_name",
        "nanodet_d2.data.validation.build_test_loader",
        "nanodet_d2.engine.solver.build_optimizer",
        "nanodet_d2.engine.solver.parameter_groups",
        "nanodet_d2.engine.solver.warmup_cosine",
        "nanodet_d2.engine.solver.warmup_multistep",
        "nanodet_d2.modeling.backbone.repvgg.make_repvgg_blocks",
        "nanodet_d2.modeling.backbone.resnet.make_dc5_stages",
        "nanodet_d2.modeling.head.assigner.DynamicSoftLabelAssigner",
        "nanodet_d2.modeling.head.atss.ATSSAssigner",
        "detectron2.data.build.get_detection_dataset_dicts",
        "detectron2.layers.shape_spec.ShapeSpec",
        "detectron2.modeling.backbone.resnet.ResNet.make_default_stages",
        "detectron2.modeling.backbone.resnet.ResNet.make_stage",
        "detectron2.solver.build.get_default_optimizer_params",
    ]
)
# Functions to which an argument gives code by its name: that is checked as well.
_BY_NAME = {
    "nanodet_d2.config.bind": "constructor",
    "nanodet_d2.checkpoint.config_text.named": "name",
}


class UntrustedTarget(ValueError):
    """A file names code that it may not name."""


@functools.cache
def bases() -> tuple[type, ...]:
    """Classes whose sub-classes are parts: making one computes nothing but itself."""
    return (
        nn.Module,
        torch.optim.Optimizer,
        ParamScheduler,
        Augmentation,
        Transform,
        DatasetEvaluator,
    )


def require_parts(node: Any, source: str, *, trusted: Sequence[str] = ()) -> None:
    """Refuse a config that names anything but parts. Only ``PACKAGES`` are imported to find out.

    Args:
        node: of plain dicts and lists, all references resolved.
        source: the file it comes from, named in errors.
        trusted: modules whose code may be named, with all that lies below them.

    Raises:
        UntrustedTarget: a ``ValueError``, naming the code and how to trust it.
    """
    if isinstance(node, list):
        for value in node:
            require_parts(value, source, trusted=trusted)
    elif isinstance(node, Mapping):
        if TARGET in node:
            argument = _BY_NAME.get(_require_part(node[TARGET], source, trusted))
            if argument is not None:
                _require_part(node.get(argument), source, trusted)
        for value in node.values():
            require_parts(value, source, trusted=trusted)


def _require_part(name: Any, source: str, trusted: Sequence[str]) -> str:
    """The place where the code of this name is defined; empty for what is trusted."""
    if not isinstance(name, str):
        raise UntrustedTarget(f"{source} has a call of {name!r:.80}; allowed: a name")
    if _is_below(name, trusted):
        return ""
    home = _home_of_part(name)
    if home is None:
        raise UntrustedTarget(
            f"{source} names {name!r:.80}, which is no part of {', '.join(PACKAGES)} that a file "
            "may name; nothing of it was run. If you trust that code, say so: "
            f"data.imports=[{name.rpartition('.')[0]:.80}]"
        )
    return home


def _home_of_part(name: str) -> str | None:
    """The place where a part is defined; None if the name is not one of a part."""
    if not _is_below(name, PACKAGES):  # nothing else is even imported
        return None
    try:
        found = locate(name)
    except Exception:  # whatever the import of something that is not there raises
        return None
    home = f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', '')}"
    if home in FUNCTIONS:
        return home
    is_part = isinstance(found, type) and _is_below(home, PACKAGES) and issubclass(found, bases())
    return home if is_part else None


def _is_below(name: str, modules: Sequence[str]) -> bool:
    return any(name == x or name.startswith(x + ".") for x in modules)
