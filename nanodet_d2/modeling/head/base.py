"""What all heads share: priors, decoding, assignment and losses.

Letters: N images, P priors, C classes, R reg_max, S slots for positive priors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from detectron2.layers import ShapeSpec
from detectron2.utils import comm
from torch import Tensor, nn

from .assigner import Assigner, Assignment, GroundTruth
from .box_coding import encode_distances, grid_priors
from .losses import (
    background_focal_loss,
    distribution_focal_loss,
    focal_correction,
    giou_loss,
)
from .raw import Predictions, flatten_levels

AUX_PREFIX = "aux_"
HALF_CELL = 0.5  # where priors lay before NanoDet-Plus
_NO_WEIGHT = 1e-12  # divides nothing by nothing


class DenseHead(nn.Module):
    """A head that predicts classes and distributions of distances for each prior.

    A subclass makes them: it has :meth:`maps` and ``class_rows`` (see
    ``nanodet_d2.modeling.parts``).

    Args:
        input_shapes: name -> ``ShapeSpec`` (channels, stride) of the neck's levels.
        num_classes: C.
        reg_max: R; a box side is at most this many strides from its prior.
        assigner: matches priors to ground truths.
        prior_offset: of a prior from its cell's upper left corner, in strides.
        qfl_weight, giou_weight, dfl_weight: weights of the three losses.

    Raises:
        ValueError: for a number of classes or a ``reg_max`` below 1, or an assigner that does not
            fit.
    """

    bins: Tensor
    saves_bins = True  # in the state, where the reference's weights hold them as well

    def __init__(
        self,
        input_shapes: Mapping[str, ShapeSpec],
        *,
        num_classes: int,
        reg_max: int,
        assigner: Assigner,
        prior_offset: float,
        qfl_weight: float,
        giou_weight: float,
        dfl_weight: float,
    ):
        super().__init__()
        name = type(self).__name__
        if num_classes < 1 or reg_max < 1:
            raise ValueError(
                f"{name} num_classes {num_classes}, reg_max {reg_max}; allowed: 1 or more for both"
            )
        if not isinstance(assigner, Assigner):
            raise ValueError(
                f"{name} has a {type(assigner).__name__} as its assigner; allowed: what "
                "nanodet_d2.modeling.head.Assigner describes"
            )
        self.num_classes = num_classes
        self.reg_max = reg_max
        self.in_features = list(input_shapes)
        self.strides = [input_shapes[name].stride for name in self.in_features]
        assigner.check_levels(self.strides)
        self.assigner = assigner
        self.prior_offset = prior_offset
        self.loss_weights = {
            "loss_qfl": qfl_weight,
            "loss_bbox": giou_weight,
            "loss_dfl": dfl_weight,
        }
        bins = torch.arange(reg_max + 1.0)
        self.register_buffer("bins", bins, persistent=self.saves_bins)

    def forward(self, pyramid: Mapping[str, Tensor]) -> Tensor:
        """Raw class and box logits (N, P, C + 4 * (R + 1)) of levels (N, channels, H, W)."""
        return flatten_levels(self.maps(pyramid))

    def maps(self, pyramid: Mapping[str, Tensor]) -> list[Tensor]:
        """The same logits as maps (N, C + 4 * (R + 1), H, W), level by level."""
        raise NotImplementedError

    def priors(self, pyramid: Mapping[str, Tensor]) -> Tensor:
        """Priors (P, 3) as ``[cx, cy, stride]`` for levels of these sizes."""
        levels = [pyramid[name] for name in self.in_features]
        sizes = [tuple(level.shape[-2:]) for level in levels]
        return grid_priors(sizes, self.strides, levels[0].device, offset=self.prior_offset)

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
        # Of all ranks, shared out: their mean gradient is that of one process with the whole batch.
        totals = self._totals(positive, box_weights) / comm.get_world_size()
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

    def _totals(self, positive: Tensor, box_weights: Sequence[Tensor]) -> Tensor:
        """What losses are divided by, of all ranks: the number of positives, then the sum of each
        branch's box weights (N, S); at least 1 for all."""
        totals = torch.stack([positive.sum().float(), *(x.sum() for x in box_weights)])
        return sum_over_ranks(totals).clamp(min=1.0)


class LegacyHead(DenseHead):
    """A head that divides its losses as those before NanoDet-Plus did (and GFL does).

    Each image counts for one positive at least, and box weights are not rounded up: in a young
    network, whose scores are small, the box losses are several times as large. (Where there is no
    positive at all, the reference drops the whole batch. Here it teaches the background.)
    """

    def _totals(self, positive: Tensor, box_weights: Sequence[Tensor]) -> Tensor:
        count = positive.sum(dim=1).clamp(min=1).sum().float()
        totals = torch.stack([count, *(x.sum() for x in box_weights)])
        return sum_over_ranks(totals).clamp(min=_NO_WEIGHT)


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
