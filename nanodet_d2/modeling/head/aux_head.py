"""The auxiliary head that guides the assignment in training (NanoDet-Plus' AGM)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from detectron2.layers import Conv2d, ShapeSpec
from torch import Tensor, nn

from nanodet_d2.layers import DepthwiseSeparableConv, Style, conv_norm_act, conv_stack

from .raw import PRIOR_BIAS, flatten_levels, init_normal


class SimpleConvHead(nn.Module):
    """Two towers of convolutions, shared by all levels, with a learnt scale per level.

    Args:
        input_shapes: name -> ``ShapeSpec`` of the levels, all of the same channels.
        num_classes, reg_max: as in the main head, which passes them.
        feat_channels: channels of the towers; those of the input if None.
        stacked_convs: convolutions per tower.
        kernel_size: of all convolutions.
        use_depthwise: depthwise separable convolutions in the towers, and 1 x 1 for the
            predictions: a ninth of the multiply-adds. The reference's head is the full one.
        norm, activation: names as in ``nanodet_d2.layers``.
    """

    def __init__(
        self,
        input_shapes: Mapping[str, ShapeSpec],
        *,
        num_classes: int,
        reg_max: int,
        feat_channels: int | None = None,
        stacked_convs: int = 4,
        kernel_size: int = 3,
        use_depthwise: bool = False,
        norm: str = "GN",
        activation: str = "LeakyReLU",
    ):
        super().__init__()
        self.in_features = list(input_shapes)
        in_channels = input_shapes[self.in_features[0]].channels
        channels = feat_channels or in_channels

        build = DepthwiseSeparableConv if use_depthwise else conv_norm_act
        predictor_size = 1 if use_depthwise else kernel_size

        def tower() -> nn.Sequential:
            style = Style(norm=norm, activation=activation)
            return conv_stack(build, in_channels, channels, stacked_convs, kernel_size, style)

        def predictor(outputs: int) -> Conv2d:
            return conv_norm_act(channels, outputs, predictor_size, norm="", activation=None)

        self.class_tower = tower()
        self.box_tower = tower()
        self.class_predictor = predictor(num_classes)
        self.box_predictor = predictor(4 * (reg_max + 1))
        self.scales = nn.ParameterList(nn.Parameter(torch.tensor(1.0)) for _ in self.in_features)
        init_normal(self)
        nn.init.constant_(self.class_predictor.bias, PRIOR_BIAS)

    def forward(self, pyramid: Mapping[str, Tensor]) -> Tensor:
        """Raw class and box logits (N, P, C + 4 * (R + 1)) of levels (N, channels, H, W)."""
        levels = []
        for name, scale in zip(self.in_features, self.scales):
            x = pyramid[name]
            classes = self.class_predictor(self.class_tower(x))
            boxes = self.box_predictor(self.box_tower(x)) * scale
            levels.append(torch.cat([classes, boxes], dim=1))
        return flatten_levels(levels)

    def class_rows(self) -> dict[str, slice]:
        """Rows of tensors of the state that belong to classes: all of the class predictor."""
        return {
            f"class_predictor.{name}": slice(0, len(tensor))
            for name, tensor in self.class_predictor.named_parameters()
        }
