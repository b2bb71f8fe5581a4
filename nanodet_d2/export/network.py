"""The networks that are exported.

Letters: N images, P priors, C classes, R reg_max.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image

from nanodet_d2.modeling import NanoDetPlus


def export_network(model: NanoDetPlus, kind: str) -> nn.Module:
    """A fused copy of the model as a network for tensors, "raw", "split" or "decoded"."""
    fused = copy.deepcopy(model).fuse()
    return {"raw": RawNetwork, "split": SplitNetwork, "decoded": DecodedNetwork}[kind](fused).eval()


class _Network(nn.Module):
    """The parts of a model that run after training."""

    def __init__(self, model: NanoDetPlus):
        super().__init__()
        self.backbone, self.neck, self.head = model.backbone, model.neck, model.head
        self.size_divisibility = model.size_divisibility

    @property
    def _classes(self) -> int:
        return self.head.num_classes


class RawNetwork(_Network):
    """Normalised images (N, 3, H, W) to (N, P, C + 4 * (R + 1)): class scores, box logits."""

    def forward(self, data: Tensor) -> Tensor:
        raw = self.head(self.neck(self.backbone(data)))
        return torch.cat([raw[..., : self._classes].sigmoid(), raw[..., self._classes :]], dim=-1)


class DecodedNetwork(_Network):
    """Normalised images to boxes (N, P, 4), XYXY, pixels of the input, and scores (N, P, C)."""

    def forward(self, data: Tensor) -> tuple[Tensor, Tensor]:
        pyramid = self.neck(self.backbone(data))
        found = self.head.decode(self.head(pyramid), self.head.priors(pyramid))
        return clip_boxes_to_image(found.boxes, data.shape[-2:]), found.logits.sigmoid()


class SplitNetwork(_Network):
    """Normalised images to scores (N, C, H_i, W_i) of each level, then box logits
    (N, H_i, W_i, 4 * (R + 1)) of each: what the reference's ncnn program reads."""

    def forward(self, data: Tensor) -> tuple[Tensor, ...]:
        maps = self.head.maps(self.neck(self.backbone(data)))
        parts = [x.split([self._classes, x.shape[1] - self._classes], dim=1) for x in maps]
        return (*(s.sigmoid() for s, _ in parts), *(b.permute(0, 2, 3, 1) for _, b in parts))
