"""Any torchvision classification network as a backbone."""

from __future__ import annotations

import difflib
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torchvision
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

from nanodet_d2.checkpoint import read_file, weights_only
from nanodet_d2.modeling.registering import register

from .levels import (
    DEFAULT_STRIDES,
    IMAGENET,
    PROBE_SIZE,
    InputSpec,
    WrappedBackbone,
    choose_levels,
    freeze_modules,
    level_name,
    run_without_memory,
)
from .weights import foreign_weights, wants_pretrained_weights

logger = logging.getLogger(__name__)

COMMON_SIZE = 224  # the only size that some networks take
# Built for their weights they normalise the images themselves, unless told otherwise.
TRANSFORM_INPUT = ("googlenet", "inception_v3")


class _Tap(NamedTuple):
    """The output of a module."""

    channels: int
    stride: int
    channels_last: bool


@register(BACKBONE_REGISTRY)
class TorchvisionBackbone(WrappedBackbone):
    """Feature maps of a torchvision network; what comes after the last one taken is not kept.

    In the short form, ``TorchvisionBackbone("mobilenet_v3_large")``, the deepest outputs of strides
    8, 16 and 32 are found and called res3, res4, res5.

    Args:
        model_name: a name of ``torchvision.models.list_models()``.
        pretrained: load the default ImageNet weights.
        checkpoint_path: load this state dict instead.
        return_nodes: module or node -> name of the feature, as in torchvision's
            ``create_feature_extractor``; found by their strides if None.
        strides: of the levels to find.
        norm_layer: class of the norm layers.
        freeze_norm: turn BatchNorm into FrozenBatchNorm2d after loading.
        freeze_at: freeze what runs at the first strides, e.g. with 2 all up to stride 4.
        **arguments: for the constructor, which refuses those it does not know.

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
        return_nodes: Mapping[str, str] | None = None,
        strides: Sequence[int] = DEFAULT_STRIDES,
        norm_layer: type[nn.Module] | None = None,
        freeze_norm: bool = False,
        freeze_at: int = 0,
        **arguments: Any,
    ):
        _require_model(model_name)
        if norm_layer is not None:
            arguments["norm_layer"] = norm_layer
        what = f"torchvision's {model_name}"
        network = _create(model_name, arguments, pretrained, checkpoint_path)
        taps, image_size = _find_taps(network, what)
        if return_nodes is None:
            names = list(taps)
            chosen = choose_levels([taps[name].stride for name in names], strides, what)
            return_nodes = {names[i]: level_name(taps[names[i]].stride) for i in chosen}
        unknown = [node for node in return_nodes if node not in taps]
        if unknown:
            close = difflib.get_close_matches(unknown[0], taps, n=5)
            raise ValueError(
                f"{what} has no feature map {unknown}; close: {', '.join(close) or list(taps)}"
            )
        super().__init__(
            create_feature_extractor(network, return_nodes=dict(return_nodes)),
            {
                name: ShapeSpec(channels=taps[node].channels, stride=taps[node].stride)
                for node, name in return_nodes.items()
            },
            channels_last=[taps[node].channels_last for node in return_nodes],
            pyramid=None,
            input_spec=_input_spec(model_name),
            image_size=image_size,
            name=what,
        )
        if freeze_norm:
            self.network = FrozenBatchNorm2d.convert_frozen_batchnorm(self.network)
        if freeze_at:
            last = sorted({tap.stride for tap in taps.values()})[freeze_at - 1]
            freeze_modules(self.network, [name for name, x in taps.items() if x.stride <= last])


def _require_model(model_name: str) -> None:
    known = torchvision.models.list_models(module=torchvision.models)
    if model_name not in known:
        close = difflib.get_close_matches(model_name, known, n=5)
        raise ValueError(
            f"torchvision {torchvision.__version__} has no classification model {model_name!r}; "
            f"close: {', '.join(close) or 'none'}"
        )


def _find_taps(network: nn.Module, what: str) -> tuple[dict[str, _Tap], tuple[int, int] | None]:
    """Every stage's output that is a feature map, in order, and the network's only input size.

    Stages are the network's children and those of its sequential ones. The network is run over
    tensors without memory.
    """
    for size in (PROBE_SIZE, COMMON_SIZE):
        taps: dict[str, _Tap] = {}
        hooks = [
            module.register_forward_hook(_note(name, size, taps))
            for name, module in _stages(network)
        ]
        try:
            run_without_memory(network.eval(), (size, size))
        except (AssertionError, RuntimeError, ValueError) as error:
            reason = error
        else:
            return taps, None if size == PROBE_SIZE else (size, size)
        finally:
            for hook in hooks:
                hook.remove()
            network.train()
    raise ValueError(
        f"{what} takes neither images of {PROBE_SIZE} x {PROBE_SIZE} nor of {COMMON_SIZE} x "
        f"{COMMON_SIZE}, so it cannot be a backbone: {reason}"
    ) from reason


def _note(name: str, size: int, taps: dict[str, _Tap]) -> Callable[[nn.Module, Any, Any], None]:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.dim() == 4:
            tap = _as_tap(output, size)
            if tap is not None:
                taps[name] = tap

    return hook


def _stages(network: nn.Module) -> list[tuple[str, nn.Module]]:
    found = []
    for name, child in network.named_children():
        found.append((name, child))
        if isinstance(child, (nn.Sequential, nn.ModuleList)):
            found += [(f"{name}.{inner}", module) for inner, module in child.named_children()]
    return found


def _as_tap(x: Tensor, size: int) -> _Tap | None:
    """Channels and stride of a map (N, C, H, W) or (N, H, W, C); None for anything else."""
    for channels_last in (False, True):
        height, width, channels = x.shape[1:] if channels_last else (*x.shape[2:], x.shape[1])
        if height == width > 1:
            # Unpadded convolutions leave a few cells too few: the nearest power of two counts.
            stride = 2 ** round(math.log2(size / height))
            return _Tap(channels, stride, channels_last)
    return None


@weights_only()  # also for a constructor's own argument ``weights``
def _create(
    model_name: str, arguments: dict[str, Any], pretrained: bool, checkpoint_path: str
) -> nn.Module:
    what = f"torchvision's {model_name}"
    if not wants_pretrained_weights():
        theirs = arguments.pop("weights", None) or (pretrained and not checkpoint_path)
        if theirs and model_name in TRANSFORM_INPUT:
            arguments.setdefault("transform_input", True)
        return torchvision.models.get_model(model_name, **arguments)
    if checkpoint_path:
        network = torchvision.models.get_model(model_name, **arguments)
        network.load_state_dict(read_file(checkpoint_path))
        logger.info("Loaded weights of %s from %s", what, checkpoint_path)
        return network
    if not pretrained:
        return torchvision.models.get_model(model_name, **arguments)
    # Fetched and read before the network is built: its constructor reads the file again, and what
    # it raises then is about the arguments. Not loaded from here: which tensors are renamed or
    # left out, and with which arguments the network is built for them, it alone knows.
    with foreign_weights(what):
        weights = torchvision.models.get_model_weights(model_name).DEFAULT
        weights.get_state_dict(check_hash=True, weights_only=True)
    network = torchvision.models.get_model(model_name, weights=weights, **arguments)
    logger.info("Loaded the default ImageNet weights of %s", what)
    return network


def _input_spec(model_name: str) -> InputSpec:
    """The normalisation of the default weights; ImageNet's where they do not tell."""
    transforms = torchvision.models.get_model_weights(model_name).DEFAULT.transforms()
    mean, std = getattr(transforms, "mean", None), getattr(transforms, "std", None)
    return InputSpec.from_unit_rgb(mean, std) if mean and std else IMAGENET
