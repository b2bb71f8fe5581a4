"""The heads whose towers all levels share: NanoDet-Plus's auxiliary one (its AGM), and GFL's."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from detectron2.layers import Conv2d, ShapeSpec
from torch import Tensor, nn

from nanodet_d2.layers import DepthwiseSeparableConv, Style, conv_norm_act, conv_stack

from .assigner import Assigner, DynamicSoftLabelAssigner
from .atss import ATSSAssigner
from .base import HALF_CELL, DenseHead, LegacyHead
from .raw import PRIOR_BIAS, init_normal


class SimpleConvHead(DenseHead):
    """Two towers of convolutions, shared by all levels, with a learnt scale per level.

    Args:
        input_shapes: name -> ``ShapeSpec`` of the levels, all of the same channels.
        num_classes, reg_max: an auxiliary head gets those of the main head.
        feat_channels: channels of the towers; those of the input if None.
        stacked_convs: convolutions per tower.
        kernel_size: of all convolutions.
        use_depthwise: depthwise separable convolutions in the towers, and 1 x 1 for the
            predictions: a ninth of the multiply-adds. The reference's head is the full one.
        assigner, prior_offset, qfl_weight, giou_weight, dfl_weight: as of ``NanoDetPlusHead``; of a
            main head.
        norm, activation: names as in ``nanodet_d2.layers``.

    Raises:
        ValueError: as ``DenseHead``.
    """

    saves_bins = False

    def __init__(
        self,
        input_shapes: Mapping[str, ShapeSpec],
        *,
        num_classes: int,
        reg_max: int = 16,
        feat_channels: int | None = None,
        stacked_convs: int = 4,
        kernel_size: int = 3,
        use_depthwise: bool = False,
        assigner: Assigner | None = None,
        prior_offset: float = 0.0,
        qfl_weight: float = 1.0,
        giou_weight: float = 2.0,
        dfl_weight: float = 0.25,
        norm: str = "GN",
        activation: str = "LeakyReLU",
    ):
        super().__init__(
            input_shapes,
            num_classes=num_classes,
            reg_max=reg_max,
            assigner=assigner or DynamicSoftLabelAssigner(),
            prior_offset=prior_offset,
            qfl_weight=qfl_weight,
            giou_weight=giou_weight,
            dfl_weight=dfl_weight,
        )
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

    def maps(self, pyramid: Mapping[str, Tensor]) -> list[Tensor]:
        """Logits as maps (N, C + 4 * (R + 1), H, W), level by level."""
        levels = []
        for name, scale in zip(self.in_features, self.scales):
            x = pyramid[name]
            classes = self.class_predictor(self.class_tower(x))
            boxes = self.box_predictor(self.box_tower(x)) * scale
            levels.append(torch.cat([classes, boxes], dim=1))
        return levels

    def class_rows(self) -> dict[str, slice]:
        """Rows of tensors of the state that belong to classes: all of the class predictor."""
        return {
            f"class_predictor.{name}": slice(0, len(tensor))
            for name, tensor in self.class_predictor.named_parameters()
        }


class GFLHead(LegacyHead, SimpleConvHead):
    """The head of Li et al. 2020, "Generalized Focal Loss", with sigmoid scores.

    Args, Raises:
        as of ``SimpleConvHead``; the assigner is an ``ATSSAssigner(anchor_scale=4)`` if None.
    """

    saves_bins = True

    def __init__(
        self,
        input_shapes: Mapping[str, ShapeSpec],
        *,
        num_classes: int,
        reg_max: int = 16,
        feat_channels: int | None = None,
        stacked_convs: int = 4,
        kernel_size: int = 3,
        use_depthwise: bool = False,
        assigner: Assigner | None = None,
        prior_offset: float = HALF_CELL,
        qfl_weight: float = 1.0,
        giou_weight: float = 2.0,
        dfl_weight: float = 0.25,
        norm: str = "GN",
        activation: str = "ReLU",
    ):
        super().__init__(
            input_shapes,
            num_classes=num_classes,
            reg_max=reg_max,
            feat_channels=feat_channels,
            stacked_convs=stacked_convs,
            kernel_size=kernel_size,
            use_depthwise=use_depthwise,
            assigner=assigner or ATSSAssigner(anchor_scale=4),
            prior_offset=prior_offset,
            qfl_weight=qfl_weight,
            giou_weight=giou_weight,
            dfl_weight=dfl_weight,
            norm=norm,
            activation=activation,
        )
