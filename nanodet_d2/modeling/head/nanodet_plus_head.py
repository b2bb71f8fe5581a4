"""The detection head of NanoDet-Plus: predictions, assignment and losses.

Letters: N images, P priors, C classes, R reg_max.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from detectron2.layers import ShapeSpec
from detectron2.utils import comm
from torch import Tensor, nn

from nanodet_d2.layers import DepthwiseSeparableConv, Style, conv_norm_act, conv_stack

from .assigner import Assignment, DynamicSoftLabelAssigner, GroundTruth
from .box_coding import encode_distances, grid_priors
from .losses import (
    background_focal_loss,
    distribution_focal_loss,
    focal_correction,
    giou_loss,
)
from .raw import PRIOR_BIAS, Predictions, flatten_levels, init_normal

AUX_PREFIX = "aux_"


class NanoDetPlusHead(nn.Module):
    """One tower per level, with class and box logits from one 1 x 1 convolution.

    Args:
        input_shapes: name -> ``ShapeSpec`` (channels, stride) of the neck's levels.
        num_classes: C.
        reg_max: R; a box side is at most this many strides from its prior.
        feat_channels: channels of the towers; those of the input if None.
        stacked_convs: convolutions per tower.
        kernel_size: of the towers' convolutions.
        use_depthwise: depthwise separable instead of full convolutions in the towers.
        assigner: matches priors to ground truths; a ``DynamicSoftLabelAssigner()`` if None.
        qfl_weight, giou_weight, dfl_weight: weights of the three losses.
        norm, activation: names as in ``nanodet_d2.layers``.

    Raises:
        ValueError: for a number of classes or a ``reg_max`` below 1.
    """

    bins: Tensor

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
        assigner: DynamicSoftLabelAssigner | None = None,
        qfl_weight: float = 1.0,
        giou_weight: float = 2.0,
        dfl_weight: float = 0.25,
        norm: str = "BN",
        activation: str = "LeakyReLU",
    ):
        super().__init__()
        if num_classes < 1 or reg_max < 1:
            raise ValueError(
                f"NanoDetPlusHead num_classes {num_classes}, reg_max {reg_max}; "
                "allowed: 1 or more for both"
            )
        self.num_classes = num_classes
        self.reg_max = reg_max
        self.in_features = list(input_shapes)
        self.strides = [input_shapes[name].stride for name in self.in_features]
        self.assigner = assigner or DynamicSoftLabelAssigner()
        self.loss_weights = {
            "loss_qfl": qfl_weight,
            "loss_bbox": giou_weight,
            "loss_dfl": dfl_weight,
        }

        # In the state, because the reference's weights hold it as well.
        self.register_buffer("bins", torch.arange(reg_max + 1.0))
        build = DepthwiseSeparableConv if use_depthwise else conv_norm_act
        style = Style(norm=norm, activation=activation)
        self.towers = nn.ModuleList()
        self.predictors = nn.ModuleList()
        for name in self.in_features:
            in_channels = input_shapes[name].channels
            channels = feat_channels or in_channels
            outputs = num_classes + 4 * (reg_max + 1)
            self.towers.append(
                conv_stack(build, in_channels, channels, stacked_convs, kernel_size, style)
            )
            self.predictors.append(conv_norm_act(channels, outputs, norm="", activation=None))
        init_normal(self, bias=PRIOR_BIAS)  # also on the box logits: a constant over the bins

    def forward(self, pyramid: Mapping[str, Tensor]) -> Tensor:
        """Raw class and box logits (N, P, C + 4 * (R + 1)) of levels (N, channels, H, W)."""
        return flatten_levels(self.maps(pyramid))

    def maps(self, pyramid: Mapping[str, Tensor]) -> list[Tensor]:
        """The same logits as maps (N, C + 4 * (R + 1), H, W), level by level."""
        return [
            predictor(tower(pyramid[name]))
            for name, tower, predictor in zip(self.in_features, self.towers, self.predictors)
        ]

    def class_rows(self) -> dict[str, slice]:
        """Rows of tensors of the state that belong to classes; those of the box logits follow."""
        return {
            f"predictors.{i}.{name}": slice(0, self.num_classes)
            for i, predictor in enumerate(self.predictors)
            for name, _ in predictor.named_parameters()
        }

    def priors(self, pyramid: Mapping[str, Tensor]) -> Tensor:
        """Priors (P, 3) as ``[cx, cy, stride]`` for levels of these sizes."""
        levels = [pyramid[name] for name in self.in_features]
        sizes = [tuple(level.shape[-2:]) for level in levels]
        return grid_priors(sizes, self.strides, levels[0].device)

    def decode(self, raw: Tensor, priors: Tensor) -> Predictions:
        """Class logits and boxes of a raw output (N, P, C + 4 * (R + 1)), this head's or alike."""
        with torch.autocast(raw.device.type, enabled=False):  # half precision makes coarse boxes
            return Predictions.from_raw(raw, priors, self.bins)

    def losses(
        self, raw: Tensor, priors: Tensor, truth: GroundTruth, aux_raw: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Assign once, from the auxiliary predictions if there are any, and score both branches.

        Args:
            raw: (N, P, C + 4 * (R + 1)), this head's output.
            priors: (P, 3)
            truth: ground truth of the batch.
            aux_raw: the auxiliary head's output, of the same shape.

        Returns:
            ``loss_qfl``, ``loss_bbox``, ``loss_dfl``, and ``aux_loss_…`` with an auxiliary branch.
        """
        with torch.autocast(raw.device.type, enabled=False):
            branches = {"": raw.float()}
            if aux_raw is not None:
                branches[AUX_PREFIX] = aux_raw.float()
            background = {
                name: background_focal_loss(x[..., : self.num_classes])  # (N, P)
                for name, x in branches.items()
            }
            guide = AUX_PREFIX if aux_raw is not None else ""
            seen = self.decode(branches[guide].detach(), priors)
            target = self.assigner(seen.logits, seen.boxes, priors, truth, background[guide])
            return self._weighted_losses(branches, background, target, priors)

    def _weighted_losses(
        self,
        branches: Mapping[str, Tensor],
        background: Mapping[str, Tensor],
        target: Assignment,
        priors: Tensor,
    ) -> dict[str, Tensor]:
        """Losses of raw outputs; all but the background's are made of the S slots alone."""
        slots = target.slots
        labels, scores = target.labels.gather(1, slots), target.scores.gather(1, slots)
        positive = labels < self.num_classes  # (N, S)
        own = labels.clamp(max=self.num_classes - 1).unsqueeze(-1)
        boxes = _take(target.boxes, slots)
        distances = encode_distances(priors[slots], boxes, self.reg_max)
        taken = {
            name: Predictions.from_raw(_take(x, slots), priors[slots], self.bins)
            for name, x in branches.items()
        }
        box_weights = [  # a positive's own confidence (GFL, section 3.2)
            x.logits.detach().amax(dim=-1).sigmoid() * positive for x in taken.values()
        ]
        totals = torch.stack([positive.sum().float(), *(x.sum() for x in box_weights)])
        # Of all ranks, shared out: their mean gradient is that of one process with the whole batch.
        totals = sum_over_ranks(totals).clamp(min=1.0) / comm.get_world_size()
        num_positive, *box_totals = totals.unbind()

        losses = {}
        for (prefix, x), weight, total in zip(taken.items(), box_weights, box_totals):
            correction = focal_correction(x.logits.gather(-1, own).squeeze(-1), scores) * positive
            qfl = (background[prefix] * target.weights).sum() + correction.sum()
            giou = giou_loss(x.boxes, boxes) * weight
            dfl = distribution_focal_loss(x.box_logits, distances) * weight
            terms = {
                "loss_qfl": qfl / num_positive,
                "loss_bbox": giou.sum() / total,
                "loss_dfl": dfl.sum() / total,
            }
            for name, value in terms.items():
                losses[prefix + name] = value * self.loss_weights[name]
        return losses


def _take(rows: Tensor, slots: Tensor) -> Tensor:
    """Rows (N, S, K) of (N, P, K) at indices (N, S)."""
    return rows.gather(1, slots.unsqueeze(-1).expand(-1, -1, rows.shape[-1]))


def sum_over_ranks(values: Tensor) -> Tensor:
    """Sum of ``values`` over the processes; themselves without any.

    Every rank calls it in every step, with or without positives, so that none waits for ever.
    (The reference's all-reduce has no effect: each of its ranks uses its own normalisers.)
    """
    if comm.get_world_size() == 1:
        return values
    values = values.clone()
    torch.distributed.all_reduce(values)
    return values
