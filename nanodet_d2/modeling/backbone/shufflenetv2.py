"""ShuffleNetV2 (Ma et al. 2018), the backbone of NanoDet-Plus-m."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
import torchvision
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor, nn

from nanodet_d2.layers import conv_norm_act
from nanodet_d2.modeling.registering import register

from .levels import IMAGENET
from .weights import load_classifier_weights

STEM_CHANNELS = 24
STAGE_CHANNELS = {  # paper, table 5: output channels of stages 2, 3 and 4
    "0.5x": (48, 96, 192),
    "1.0x": (116, 232, 464),
    "1.5x": (176, 352, 704),
    "2.0x": (244, 488, 976),
}
TORCHVISION_NAME = "shufflenet_v2_x{}_{}"  # of size {}.{}x
STAGE_BLOCKS = (4, 8, 4)
STAGE_STRIDES = {"res3": 8, "res4": 16, "res5": 32}


def channel_shuffle(x: Tensor) -> Tensor:
    """Interleave the two halves of the channels of ``x`` (N, C, H, W)."""
    n, c, h, w = x.shape
    # In these very steps pnnx knows it for ncnn's one layer.
    return x.reshape(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class ShuffleUnit(nn.Module):
    """Basic unit (stride 1, half of the channels pass through) or down-sampling unit (stride 2).

    Paper, figure 3 (c) and (d).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int,
        norm: str,
        activation: str | None,
    ):
        super().__init__()
        half = out_channels // 2
        self.stride = stride

        def depthwise(channels: int) -> nn.Module:
            return conv_norm_act(
                channels, channels, 3, stride=stride, groups=channels, norm=norm, activation=None
            )

        def pointwise(channels: int) -> nn.Module:
            return conv_norm_act(channels, half, norm=norm, activation=activation)

        if stride == 2:
            self.branch1 = nn.Sequential(depthwise(in_channels), pointwise(in_channels))
        branch2_in = in_channels if stride == 2 else half
        self.branch2 = nn.Sequential(pointwise(branch2_in), depthwise(half), pointwise(half))

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 2:
            left, right = self.branch1(x), x
        else:
            left, right = x.chunk(2, dim=1)
        return channel_shuffle(torch.cat([left, self.branch2(right)], dim=1))


@register(BACKBONE_REGISTRY)
class ShuffleNetV2(Backbone):
    """ShuffleNetV2 features at strides 8, 16 and 32, without the classifier's last convolution.

    Args:
        size: "0.5x", "1.0x", "1.5x" or "2.0x".
        out_features: which of "res3", "res4", "res5" to return; stages after the last are not
            built.
        norm: a name of ``detectron2.layers.get_norm``.
        activation: a name of ``nanodet_d2.layers.get_activation``.
        pretrained: load torchvision's ImageNet weights, which want RGB images.
        checkpoint_path: load this file, in torchvision's names, instead.

    Raises:
        ValueError: for an unknown size or feature, or weights that cannot be had.
    """

    def __init__(
        self,
        size: str = "1.0x",
        *,
        out_features: Sequence[str] = ("res3", "res4", "res5"),
        norm: str = "BN",
        activation: str | None = "ReLU",
        pretrained: bool = False,
        checkpoint_path: str = "",
    ):
        super().__init__()
        if size not in STAGE_CHANNELS:
            raise ValueError(f"ShuffleNetV2 size {size!r}; allowed: {', '.join(STAGE_CHANNELS)}")
        unknown = sorted(set(out_features) - set(STAGE_STRIDES))
        if unknown or not out_features:
            raise ValueError(
                f"ShuffleNetV2 out_features {list(out_features)}; "
                f"allowed: one or more of {list(STAGE_STRIDES)}"
            )
        self._out_features = [name for name in STAGE_STRIDES if name in out_features]
        self._out_feature_strides = dict(STAGE_STRIDES)
        self._out_feature_channels = dict(zip(STAGE_STRIDES, STAGE_CHANNELS[size]))

        self.stem = conv_norm_act(3, STEM_CHANNELS, 3, stride=2, norm=norm, activation=activation)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.stages = nn.ModuleDict()
        channels = STEM_CHANNELS
        for (name, out_channels), blocks in zip(self._out_feature_channels.items(), STAGE_BLOCKS):
            units = [
                ShuffleUnit(
                    channels if i == 0 else out_channels,
                    out_channels,
                    stride=2 if i == 0 else 1,
                    norm=norm,
                    activation=activation,
                )
                for i in range(blocks)
            ]
            self.stages[name] = nn.Sequential(*units)
            channels = out_channels
            if name == self._out_features[-1]:
                break
        self._init_weights()
        if pretrained or checkpoint_path:
            weights = torchvision.models.get_model_weights(
                TORCHVISION_NAME.format(*size[:-1].split("."))
            ).DEFAULT
            what = f"torchvision's {weights}"
            download = functools.partial(weights.get_state_dict, check_hash=True, weights_only=True)
            load_classifier_weights(self, what, checkpoint_path, download)
            self.input_spec = IMAGENET

    def _init_weights(self) -> None:
        """The reference's start: N(0, 1 / fan-in channels) and a bias of 1e-4 in the norms."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=1.0 / module.weight.shape[1])
            elif isinstance(module, (nn.BatchNorm2d, nn.GroupNorm)):
                nn.init.constant_(module.bias, 1e-4)

    @property
    def size_divisibility(self) -> int:
        return max(spec.stride for spec in self.output_shape().values())

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map images (N, 3, H, W) to ``{name: (N, channels, H / stride, W / stride)}``."""
        x = self.maxpool(self.stem(x))
        outputs = {}
        for name, stage in self.stages.items():
            x = stage(x)
            if name in self._out_features:
                outputs[name] = x
        return outputs
