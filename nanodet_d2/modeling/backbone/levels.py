"""What the wrappers of other libraries' networks share: which levels to take, and in what form."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import Backbone
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

logger = logging.getLogger(__name__)

DEFAULT_STRIDES = (8, 16, 32)
CHANNEL_ORDERS = ("RGB", "BGR")
PROBE_SIZE = 256  # pixels, of the images that a network is looked at with


class InputSpec(NamedTuple):
    """The images that a backbone's weights were trained on."""

    channel_order: str  # "RGB" or "BGR"
    pixel_mean: tuple[float, ...]  # of each channel in that order, in [0, 255]
    pixel_std: tuple[float, ...]

    @classmethod
    def from_unit_rgb(cls, mean: Sequence[float], std: Sequence[float]) -> InputSpec:
        """From values in [0, 1] and RGB, as timm and torchvision state them."""
        return cls("RGB", tuple(255 * x for x in mean), tuple(255 * x for x in std))

    def in_order(self, channel_order: str) -> InputSpec:
        """The same values for "RGB" or "BGR"."""
        if channel_order == self.channel_order:
            return self
        return InputSpec(channel_order, self.pixel_mean[::-1], self.pixel_std[::-1])


IMAGENET = InputSpec.from_unit_rgb((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def choose_levels(strides: Sequence[int], wanted: Sequence[int], network: str) -> list[int]:
    """Indices of the levels of the wanted strides: of several with one stride the deepest.

    Raises:
        ValueError: if the network lacks one of them; the message lists those it has.
    """
    deepest = {stride: index for index, stride in enumerate(strides)}
    missing = [stride for stride in wanted if stride not in deepest]
    if missing:
        raise ValueError(
            f"{network} has no features of stride {', '.join(map(str, missing))}; "
            f"it has strides {sorted(deepest)}: name the levels to take yourself"
        )
    return [deepest[stride] for stride in wanted]


def level_name(stride: int) -> str:
    """``res{log2 stride}``, rounded for strides that are no power of two."""
    return f"res{round(math.log2(stride))}"


class WrappedBackbone(Backbone):
    """A backbone of another library: a network that returns a list of feature maps.

    Args:
        network: maps images to a list or dict of feature maps, one for each of ``shapes``.
        shapes: name -> ``ShapeSpec`` (channels, stride), in the order of the maps.
        channels_last: whether each of the network's maps is (N, H, W, C).
        pyramid: makes the maps of ``shapes`` out of the network's only one; none if None.
        input_spec: what the weights were trained on.
        image_size: (height, width) of the input that the network was made for; None if unknown.
        name: of the network, for messages.
    """

    def __init__(
        self,
        network: nn.Module,
        shapes: Mapping[str, ShapeSpec],
        *,
        channels_last: Sequence[bool],
        pyramid: nn.Module | None,
        input_spec: InputSpec,
        name: str,
        image_size: tuple[int, int] | None = None,
    ):
        super().__init__()
        self.network = network
        self.pyramid = pyramid
        self.input_spec = input_spec
        self._name = name
        self.image_size = image_size
        self._channels_last = list(channels_last)
        self._shapes = dict(shapes)
        self._out_features = list(shapes)
        for parameter in unused_parameters(network, image_size or (PROBE_SIZE, PROBE_SIZE)):
            parameter.requires_grad_(False)  # so that a distributed training waits for none

    @property
    def size_divisibility(self) -> int:
        return max(spec.stride for spec in self._shapes.values())

    def output_shape(self) -> dict[str, ShapeSpec]:
        return dict(self._shapes)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map images (N, 3, H, W) to ``{name: (N, channels, H / stride, W / stride)}``.

        Raises:
            ValueError: for a size that the network does not take, or if it does not produce the
                channels it declares.
        """
        maps = self._feature_maps(x)
        maps = [
            m.permute(0, 3, 1, 2).contiguous() if channels_last else m
            for m, channels_last in zip(maps, self._channels_last)
        ]
        if self.pyramid is not None:
            maps = self.pyramid(maps[0])
        return {
            name: self._checked(name, spec, m, x.shape[-2:])
            for (name, spec), m in zip(self._shapes.items(), maps)
        }

    def _feature_maps(self, x: Tensor) -> list[Tensor]:
        try:
            maps = self.network(x)
            return list(maps.values() if isinstance(maps, dict) else maps)
        except torch.cuda.OutOfMemoryError:  # a RuntimeError that says nothing of the size
            raise
        except (AssertionError, IndexError, RuntimeError) as error:
            size, divisor = tuple(x.shape[-2:]), self.size_divisibility
            if any(side % divisor for side in size):
                allowed = f"multiples of {divisor}"
            elif self.image_size not in (None, size):
                # Only now: many networks take more than the size they were made for.
                allowed = f"{self.image_size}: set data.input_size, and img_size if it has that"
            else:
                raise
            raise ValueError(
                f"{self._name} fails on images of {size} (height, width); it takes images of "
                f"{allowed}. It said: {error}"
            ) from error

    def _checked(self, name: str, spec: ShapeSpec, x: Tensor, image_size: torch.Size) -> Tensor:
        if x.shape[1] != spec.channels:
            raise ValueError(
                f"{self._name}: {name} has {x.shape[1]} channels, declared were {spec.channels}"
            )
        size = tuple(-(-side // spec.stride) for side in image_size)
        if tuple(x.shape[-2:]) != size:
            # Unpadded convolutions leave a few cells too few (Inception).
            x = F.interpolate(x, size=size, mode="bilinear")
        return x


def run_without_memory(
    network: nn.Module, image_size: tuple[int, int]
) -> tuple[dict[str, Tensor], Any]:
    """Run a network on stand-ins of its parameters and buffers that have shapes only.

    Returns:
        the stand-ins by name (those of parameters that are trained require a gradient), and the
        network's output.
    """
    state = {n: x.detach().to("meta") for n, x in network.state_dict(keep_vars=True).items()}
    for name, parameter in network.named_parameters():
        state[name].requires_grad_(parameter.requires_grad)
    image = torch.zeros(1, 3, *image_size, device="meta")
    return state, functional_call(network, state, image)


def unused_parameters(network: nn.Module, image_size: tuple[int, int]) -> list[nn.Parameter]:
    """Trained parameters that no output depends on; none where the network cannot be looked at."""
    parameters = {n: p for n, p in network.named_parameters() if p.requires_grad}
    try:
        state, maps = run_without_memory(network, image_size)
        total = sum(x.sum() for x in (maps.values() if isinstance(maps, dict) else maps))
        stand_ins = [state[name] for name in parameters]
        gradients = torch.autograd.grad(total, stand_ins, allow_unused=True)
    except Exception as error:  # tensors outside the state, arithmetic on the host, …
        logger.debug("Could not look for unused parameters: %s", error)
        return []
    return [p for p, gradient in zip(parameters.values(), gradients) if gradient is None]


def freeze_modules(root: nn.Module, names: Sequence[str]) -> None:
    """Stop training the modules of these dotted names, and fix the statistics of their norms."""
    for name in names:
        parent_name, _, child = name.rpartition(".")
        module = root.get_submodule(name)
        for parameter in module.parameters():
            parameter.requires_grad_(False)
        frozen = FrozenBatchNorm2d.convert_frozen_batchnorm(module)
        setattr(root.get_submodule(parent_name), child, frozen)


class SimplePyramid(nn.Module):
    """Levels of several strides from one map (Li et al. 2022, "ViTDet", section 3).

    Finer ones by transposed convolutions of stride 2, coarser ones by max-pooling.

    Args:
        channels, stride: of the map.
        wanted: strides to come close to; the levels have ``stride`` times powers of two.
    """

    def __init__(self, channels: int, stride: int, wanted: Sequence[int] = DEFAULT_STRIDES):
        super().__init__()
        self.levels = nn.ModuleList()
        self.shapes: list[ShapeSpec] = []
        for target in wanted:
            steps = round(math.log2(target / stride))
            layers: list[nn.Module] = []
            width = channels
            for _ in range(-steps):
                layers += [nn.ConvTranspose2d(width, max(width // 2, 1), 2, stride=2), nn.GELU()]
                width = max(width // 2, 1)
            layers += [nn.MaxPool2d(2) for _ in range(steps)]
            self.levels.append(nn.Sequential(*layers))
            self.shapes.append(ShapeSpec(channels=width, stride=round(stride * 2.0**steps)))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (N, C, H, W) to one map per level."""
        return [level(x) for level in self.levels]
