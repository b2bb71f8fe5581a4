"""Convolution -> norm -> activation, as detectron2's ``Conv2d`` runs them."""

from __future__ import annotations

from typing import Callable, TypedDict

from detectron2.layers import Conv2d, get_norm
from fvcore.nn.weight_init import c2_msra_fill
from torch import Tensor, nn

LEAKY_SLOPE = 0.1  # NanoDet's choice; torch's default is 0.01

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "ReLU": lambda: nn.ReLU(inplace=True),
    "ReLU6": lambda: nn.ReLU6(inplace=True),
    "LeakyReLU": lambda: nn.LeakyReLU(LEAKY_SLOPE, inplace=True),
    "ELU": lambda: nn.ELU(inplace=True),
    "SELU": lambda: nn.SELU(inplace=True),
    "SiLU": lambda: nn.SiLU(inplace=True),
    "Hardswish": lambda: nn.Hardswish(inplace=True),
    "GELU": nn.GELU,
    "PReLU": nn.PReLU,
}


class Style(TypedDict):
    """What all convolutions of a part share: names, as :func:`conv_norm_act` takes them."""

    norm: str
    activation: str | None


def get_activation(name: str | None) -> nn.Module | None:
    """A new activation module by name; ``None`` and ``""`` mean no activation.

    Raises:
        ValueError: if the name is unknown.
    """
    if not name:
        return None
    if name not in _ACTIVATIONS:
        raise ValueError(f"unknown activation {name!r}; allowed: {', '.join(_ACTIVATIONS)}, None")
    return _ACTIVATIONS[name]()


class ConvNormAct(Conv2d):
    """detectron2's, whose norm, while its statistics stay as they are, acts on the weight.

    A norm that is not in training mode is a scale and a shift for each channel. In a training it
    costs less to scale the weight than the map, forward and backward; outputs and gradients are the
    same but for rounding ("Tune mode" of You et al. 2023, arXiv 2305.11624, section 3).
    """

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and self._norm_stays()):
            return super().forward(x)
        x = self._conv_forward(x, *self._folded())
        return x if self.activation is None else self.activation(x)

    def _norm_stays(self) -> bool:
        norm = self.norm
        return isinstance(norm, nn.BatchNorm2d) and not norm.training and norm.track_running_stats

    def _folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the convolution and its norm together."""
        norm = self.norm
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        shift = norm.bias - norm.running_mean * scale
        return self.weight * scale.view(-1, 1, 1, 1), shift


def conv_norm_act(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 1,
    *,
    stride: int = 1,
    groups: int = 1,
    norm: str = "BN",
    activation: str | None = "LeakyReLU",
) -> Conv2d:
    """A "same"-padded convolution with its norm and activation; it has a bias iff ``norm`` is "".

    The weight starts Kaiming-normal over the fan-out (He et al. 2015, section 2.2).
    """
    conv = ConvNormAct(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=kernel_size // 2,
        groups=groups,
        bias=not norm,
        norm=get_norm(norm, out_channels),
        activation=get_activation(activation),
    )
    c2_msra_fill(conv)
    return conv


def conv_stack(
    build: Callable[..., nn.Module],
    in_channels: int,
    channels: int,
    count: int,
    kernel_size: int,
    style: Style,
) -> nn.Sequential:
    """``count`` convolutions made by ``build`` (of this module); all but the first keep width."""
    return nn.Sequential(
        *(
            build(in_channels if i == 0 else channels, channels, kernel_size, **style)
            for i in range(count)
        )
    )


class DepthwiseSeparableConv(nn.Sequential):
    """Depthwise k x k and pointwise 1 x 1, each followed by norm and activation (MobileNet).

    detectron2's ``DepthwiseSeparableConv2d`` has no stride, which the neck's down-sampling needs.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 5,
        *,
        stride: int = 1,
        norm: str = "BN",
        activation: str | None = "LeakyReLU",
    ):
        super().__init__()
        self.depthwise = conv_norm_act(
            in_channels,
            in_channels,
            kernel_size,
            stride=stride,
            groups=in_channels,
            norm=norm,
            activation=activation,
        )
        self.pointwise = conv_norm_act(in_channels, out_channels, norm=norm, activation=activation)
