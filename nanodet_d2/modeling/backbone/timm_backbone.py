"""Any timm network as a backbone."""

from __future__ import annotations

import contextlib
import difflib
import inspect
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import timm
import torch
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from torch import nn

from nanodet_d2.modeling.registering import register

from .levels import (
    CHANNEL_ORDERS,
    DEFAULT_STRIDES,
    InputSpec,
    SimplePyramid,
    WrappedBackbone,
    choose_levels,
    freeze_modules,
)
from .levels import level_name as stride_name
from .weights import foreign_weights, wants_pretrained_weights

logger = logging.getLogger(__name__)

# Arguments by which networks that are built for one input size take others.
_LIFTS: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False})


class _Levels(NamedTuple):
    """Every feature level that a network offers."""

    channels: list[int]
    strides: list[int]


@register(BACKBONE_REGISTRY)
class TimmBackbone(WrappedBackbone):
    """Feature maps of a timm network; layers after the last one taken are not kept.

    In the short form, ``TimmBackbone("mobilenetv3_large_100")``, the levels of strides 8, 16 and 32
    are found (of several the deepest) and called res3, res4, res5; a network of a single stride,
    such as a plain ViT, gets a simple pyramid. With ``out_indices`` they are timm's levels of these
    indices, called ``p{index}``, as in detrex.

    Args:
        model_name: a name of ``timm.list_models()``, with or without a tag of its weights.
        pretrained: load the ImageNet weights that the name stands for.
        checkpoint_path: load this file instead.
        pretrained_cfg_overlay: changes of timm's description of the weights, e.g. ``{"file": …}``.
        features_only: always True; there for configs written for detrex.
        channel_order: "RGB", as all of timm's weights want it, or "BGR" for weights of others.
        in_channels: of the images.
        out_indices: levels to take; found by their strides if None.
        strides: of the levels to find.
        img_size: input size (height, width) that the network is built for, where it needs one.
        norm_layer: class of the norm layers, e.g. ``FrozenBatchNorm2d``.
        freeze_norm: turn BatchNorm into FrozenBatchNorm2d after loading.
        freeze_at: freeze this many levels, from the image on, with everything before them.
        **arguments: for ``timm.create_model``, which refuses those it does not know.

    Raises:
        ValueError: for an unknown name, levels that the network lacks, or weights that cannot be
            had; the message says what there is.
    """

    def __init__(
        self,
        model_name: str,
        *,
        pretrained: bool = False,
        checkpoint_path: str = "",
        pretrained_cfg_overlay: dict[str, Any] | None = None,
        features_only: bool = True,
        channel_order: str = "RGB",
        in_channels: int = 3,
        out_indices: Sequence[int] | None = None,
        strides: Sequence[int] = DEFAULT_STRIDES,
        img_size: int | Sequence[int] | None = None,
        norm_layer: type[nn.Module] | None = None,
        freeze_norm: bool = False,
        freeze_at: int = 0,
        **arguments: Any,
    ):
        if not features_only:
            raise ValueError("TimmBackbone features_only False; allowed: True, the default")
        if channel_order not in CHANNEL_ORDERS:
            allowed = ", ".join(CHANNEL_ORDERS)
            raise ValueError(f"TimmBackbone channel_order {channel_order!r}; allowed: {allowed}")
        _require_model(model_name)
        if norm_layer is not None:
            arguments["norm_layer"] = _without_device(norm_layer)
        arguments.update(in_chans=in_channels, img_size=_plain(img_size))
        arguments = _with_any_size(model_name, arguments)
        offered = _offered_levels(model_name, arguments)
        indices, names = _take(offered, out_indices, strides, model_name)
        overlay = dict(pretrained_cfg_overlay or {})
        if checkpoint_path:
            overlay["file"] = checkpoint_path
        network = _create(model_name, indices, arguments, pretrained=pretrained, overlay=overlay)

        pyramid = None
        if names is None:
            pyramid = SimplePyramid(
                offered.channels[indices[0]], offered.strides[indices[0]], strides
            )
            shapes = {stride_name(spec.stride): spec for spec in pyramid.shapes}
        else:
            shapes = {
                name: ShapeSpec(channels=offered.channels[i], stride=offered.strides[i])
                for name, i in zip(names, indices)
            }
        super().__init__(
            network,
            shapes,
            channels_last=[str(getattr(network, "output_fmt", "")).endswith("NHWC")] * len(indices),
            pyramid=pyramid,
            input_spec=InputSpec.from_unit_rgb(
                network.pretrained_cfg["mean"], network.pretrained_cfg["std"]
            ).in_order(channel_order),
            image_size=_own_size(network, arguments),
            name=f"timm's {model_name}",
        )
        if freeze_norm:
            self.network = FrozenBatchNorm2d.convert_frozen_batchnorm(self.network)
        if freeze_at:
            _freeze(network, freeze_at, model_name)


def _plain(value: Any) -> Any:
    """Lists of lazy configs as tuples, which timm expects."""
    return value if value is None or isinstance(value, int) else tuple(value)


def _without_device(norm_layer: type[nn.Module]) -> type[nn.Module]:
    """The class, made to accept ``device`` and ``dtype``, which timm hands to all layers."""
    parameters = inspect.signature(norm_layer).parameters
    if "device" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return norm_layer

    base: Any = norm_layer  # mypy takes no base class from a variable

    class Norm(base):
        def __init__(self, *args: Any, device: Any = None, dtype: Any = None, **kwargs: Any):
            super().__init__(*args, **kwargs)

    return Norm


def _require_model(model_name: str) -> None:
    architecture = model_name.partition(".")[0]
    if timm.is_model(architecture):
        return
    close = difflib.get_close_matches(architecture, timm.list_models(), n=5)
    raise ValueError(
        f"timm {timm.__version__} has no model {model_name!r}; close: {', '.join(close) or 'none'}"
    )


def _with_any_size(model_name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments, and for a network of a fixed input size the one that lifts it, if it has one.

    A plain ViT resamples its position embeddings then, a Swin pads its windows.
    """
    if arguments["img_size"] is not None or not _is_fixed(model_name):
        return arguments
    for lift in _LIFTS:
        with contextlib.suppress(Exception), torch.device("meta"):
            timm.create_model(model_name, features_only=True, **arguments, **lift)
            return {**arguments, **lift}
    return arguments


def _is_fixed(model_name: str) -> bool:
    cfg = timm.get_pretrained_cfg(model_name, allow_unregistered=False)
    return cfg is not None and bool(cfg.fixed_input_size)


def _own_size(network: Any, arguments: dict[str, Any]) -> tuple[int, int]:
    """(height, width) of the input that the network was made for."""
    size = arguments["img_size"] or network.pretrained_cfg["input_size"][1:]
    return (size, size) if isinstance(size, int) else tuple(size)


def _offered_levels(model_name: str, arguments: dict[str, Any]) -> _Levels:
    """Channels and strides of all levels; the network is built without memory for its weights."""
    try:
        with torch.device("meta"):
            network: Any = timm.create_model(model_name, features_only=True, **arguments)
            info = network.feature_info
    except Exception as error:  # each architecture fails in its own way
        raise ValueError(
            f"timm's {model_name} cannot be built as a backbone: {type(error).__name__}: {error}"
        ) from error
    every = range(len(info))
    return _Levels(info.channels(list(every)), info.reduction(list(every)))


def _take(
    offered: _Levels, out_indices: Sequence[int] | None, strides: Sequence[int], model_name: str
) -> tuple[list[int], list[str] | None]:
    """Indices of the levels to take and their names; no names for a single one to be spread."""
    count = len(offered.strides)
    if out_indices is not None:
        bad = [i for i in out_indices if not 0 <= i < count]
        if bad:
            raise ValueError(
                f"timm's {model_name}: out_indices {list(out_indices)}; allowed: 0 to {count - 1}, "
                f"with strides {offered.strides}"
            )
        return list(out_indices), [f"p{i}" for i in out_indices]
    if len(set(offered.strides)) == 1:
        return [count - 1], None
    indices = choose_levels(offered.strides, strides, f"timm's {model_name}")
    return indices, [stride_name(offered.strides[i]) for i in indices]


def _create(
    model_name: str,
    indices: list[int],
    arguments: dict[str, Any],
    *,
    pretrained: bool,
    overlay: dict[str, Any],
) -> Any:
    """The network; that it has ``feature_info`` and ``pretrained_cfg`` timm's types do not tell."""
    build: dict[str, Any] = dict(
        features_only=True,
        out_indices=tuple(indices),
        pretrained_cfg_overlay=overlay,
        **arguments,
    )
    if not ((pretrained or "file" in overlay) and wants_pretrained_weights()):
        return timm.create_model(model_name, **build)
    with foreign_weights(
        f"timm's {model_name}",
        overlay.get("file", "the network"),
        by_file='checkpoint_path=… or pretrained_cfg_overlay={"file": …}',
    ):
        network = timm.create_model(model_name, pretrained=True, **build)
    logger.info("Loaded weights of timm's %s from %s", model_name, overlay.get("file", "its hub"))
    return network


def _freeze(network: Any, levels: int, model_name: str) -> None:
    """Freeze the modules up to the given number of levels, in the order they run."""
    names = [name for name, _ in network.named_children()]
    last = network.feature_info.info[levels - 1]["module"].replace(".", "_")
    if last not in names:
        raise ValueError(
            f"timm's {model_name} is not a chain of stages: freeze_at {levels} cannot be done; "
            "allowed: 0"
        )
    freeze_modules(network, names[: names.index(last) + 1])
