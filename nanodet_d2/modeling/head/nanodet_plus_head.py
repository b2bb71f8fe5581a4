"""The heads with towers of their own for each level: NanoDet-Plus's, and that before it."""

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


class NanoDetPlusHead(DenseHead):
    """One tower per level, with class and box logits from one 1 x 1 convolution.

    Args:
        input_shapes, num_classes, reg_max, prior_offset: as of ``DenseHead``.
        feat_channels: channels of the towers; those of the input if None.
        stacked_convs: convolutions per tower.
        kernel_size: of the towers' convolutions.
        use_depthwise: depthwise separable instead of full convolutions in the towers.
        share_cls_reg: else the box logits come from a tower and a convolution of their own.
        assigner: matches priors to ground truths; a ``DynamicSoftLabelAssigner()`` if None.
        qfl_weight, giou_weight, dfl_weight: weights of the three losses.
        norm, activation: names as in ``nanodet_d2.layers``.

    Raises:
        ValueError: as ``DenseHead``.
    """

    box_towers: nn.ModuleList | None
    box_predictors: nn.ModuleList | None

    def __init__(
        self,
        input_shapes: Mapping[str, ShapeSpec],
        *,
        num_classes: int,
        reg_max: int = 7,
        feat_channels: int | None = None,
        stacked_convs: int = 2,
        kernel_size: int = 5,
        use_depthwise: bool = True,
        share_cls_reg: bool = True,
        assigner: Assigner | None = None,
        prior_offset: float = 0.0,
        qfl_weight: float = 1.0,
        giou_weight: float = 2.0,
        dfl_weight: float = 0.25,
        norm: str = "BN",
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
        build = DepthwiseSeparableConv if use_depthwise else conv_norm_act
        style = Style(norm=norm, activation=activation)

        def tower(channels: int) -> nn.Sequential:
            width = feat_channels or channels
            return conv_stack(build, channels, width, stacked_convs, kernel_size, style)

        def predictor(channels: int, outputs: int) -> Conv2d:
            return conv_norm_act(feat_channels or channels, outputs, norm="", activation=None)

        channels = [input_shapes[name].channels for name in self.in_features]
        box_outputs = 4 * (reg_max + 1)
        outputs = num_classes + box_outputs if share_cls_reg else num_classes
        self.towers = nn.ModuleList()
        self.predictors = nn.ModuleList()
        for width in channels:
            self.towers.append(tower(width))
            self.predictors.append(predictor(width, outputs))
        init_normal(self, bias=PRIOR_BIAS)  # also on the box logits: a constant over the bins
        self.box_towers = self.box_predictors = None
        if not share_cls_reg:
            self.box_towers = nn.ModuleList(tower(width) for width in channels)
            self.box_predictors = nn.ModuleList(predictor(x, box_outputs) for x in channels)
            init_normal(self.box_towers)
            init_normal(self.box_predictors)

    def maps(self, pyramid: Mapping[str, Tensor]) -> list[Tensor]:
        """Logits as maps (N, C + 4 * (R + 1), H, W), level by level."""
        levels = [pyramid[name] for name in self.in_features]
        maps = [p(tower(x)) for x, tower, p in zip(levels, self.towers, self.predictors)]
        if self.box_towers is None or self.box_predictors is None:
            return maps
        boxes = [p(tower(x)) for x, tower, p in zip(levels, self.box_towers, self.box_predictors)]
        return [torch.cat(pair, dim=1) for pair in zip(maps, boxes)]

    def class_rows(self) -> dict[str, slice]:
        """Rows of tensors of the state that belong to classes; those of the box logits follow."""
        return {
            f"predictors.{i}.{name}": slice(0, self.num_classes)
            for i, predictor in enumerate(self.predictors)
            for name, _ in predictor.named_parameters()
        }


class NanoDetHead(LegacyHead, NanoDetPlusHead):
    """The head before NanoDet-Plus: priors in the middle of their cells, matched by ATSS.

    The reference's has convolutions for boxes beside the shared ones as well, which nothing uses;
    here they are not made.

    Args, Raises:
        as of ``NanoDetPlusHead``; the assigner is an ``ATSSAssigner()`` if None.
    """

    def __init__(
        self,
        input_shapes: Mapping[str, ShapeSpec],
        *,
        num_classes: int,
        reg_max: int = 16,
        feat_channels: int | None = None,
        stacked_convs: int = 2,
        kernel_size: int = 3,
        use_depthwise: bool = True,
        share_cls_reg: bool = False,
        assigner: Assigner | None = None,
        prior_offset: float = HALF_CELL,
        qfl_weight: float = 1.0,
        giou_weight: float = 2.0,
        dfl_weight: float = 0.25,
        norm: str = "BN",
        activation: str = "LeakyReLU",
    ):
        super().__init__(
            input_shapes,
            num_classes=num_classes,
            reg_max=reg_max,
            feat_channels=feat_channels,
            stacked_convs=stacked_convs,
            kernel_size=kernel_size,
            use_depthwise=use_depthwise,
            share_cls_reg=share_cls_reg,
            assigner=assigner or ATSSAssigner(),
            prior_offset=prior_offset,
            qfl_weight=qfl_weight,
            giou_weight=giou_weight,
            dfl_weight=dfl_weight,
            norm=norm,
            activation=activation,
        )
