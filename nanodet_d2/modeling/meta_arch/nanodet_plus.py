"""The one-stage detector, of NanoDet-Plus and those before it, as a meta-architecture."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, Callable

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import META_ARCH_REGISTRY, Backbone, detector_postprocess
from detectron2.structures import ImageList
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image

from nanodet_d2.layers import batch_norms, fuse_conv_norm
from nanodet_d2.modeling.head import GroundTruth, select_detections, unwarp
from nanodet_d2.modeling.parts import AuxHead, Head, Neck, bind_part
from nanodet_d2.modeling.registering import register
from nanodet_d2.runtime.checks import NMS

from .inputs import batch_ground_truth, batch_images
from .micro_batches import Outputs, in_micro_batches

AUX_AFTER_DETACH = ("guide", "drop")
INPUT_FORMATS = ("BGR", "RGB")
BLANK_SIZE = 128  # of an image to try a network with, whatever size it takes
# What a backbone is fed that states no ``input_spec``: channel order, mean, deviation.
REFERENCE_INPUT = ("BGR", (103.53, 116.28, 123.675), (57.375, 57.12, 58.395))


@register(META_ARCH_REGISTRY)
class NanoDetPlus(nn.Module):
    """Backbone, neck and head, and in training an auxiliary branch that guides the assignment.

    Neck and heads come as modules, or as partials (``nanodet_d2.config.LazyPartial``) that still
    need ``input_shapes``, which they get from the part before them.

    Args:
        backbone: detectron2 backbone; its ``output_shape`` tells channels and strides.
        neck: a ``Neck`` of ``nanodet_d2.modeling.parts``, or a partial of one.
        head: a ``Head``, or a partial of one.
        aux_head: an ``AuxHead``, or a partial of one; None trains without the branch. Its neck
            starts as a copy of ``neck`` and both necks' levels are joined as its input.
        aux_detach_iter: from this training iteration on, the branch sends no gradient into
            backbone and neck.
        aux_after_detach: what the branch does from then on: "guide" (as the reference) keeps
            training and guiding the assignment, "drop" leaves the step, which is then several
            times cheaper, and the head's own predictions guide.
        freeze_norm: keep the statistics of batch norms in training: for batches that are too small
            for their own, and for weights whose norms are folded into the convolutions, as those
            that the reference released.
        micro_batches: pieces in which a training batch goes through the network: less memory, the
            losses and gradients of the whole batch, one more forward pass (gradient accumulation).
        input_format: order of the channels of the images handed in, "BGR" or "RGB"; a backbone
            whose weights want the other order gets it.
        pixel_mean, pixel_std: of each channel in the order of the backbone, in [0, 255]. If None,
            those that the backbone states (``input_spec``), else the reference's.
        score_thresh: a class score must be above it to be a detection.
        nms_thresh: IoU above which class-wise NMS suppresses.
        max_detections: kept per image.
        nms: "plain", or "voting": each box that is kept moves to the weighted mean of those of its
            class that it suppressed with an IoU above ``vote_thresh``, itself included; weights are
            scores to the power ``vote_power``.
        vote_thresh, vote_power: see ``nms``.

    Raises:
        ValueError: for an unknown ``aux_after_detach``, ``input_format`` or ``nms``, less than one
            micro-batch, or a part that lacks something of what is asked of it.

    Attributes:
        size_divisibility: of height and width of what goes in; images are padded to it.

    Example:
        >>> from detectron2.config import LazyCall as L, instantiate
        >>> from nanodet_d2.config import get_config
        >>> from nanodet_d2.modeling import GhostNet, NanoDetPlus
        >>> config = get_config("nanodet_plus/nanodet_plus_m_416.py")
        >>> config.model.backbone = L(GhostNet)(width_mult=1.0, out_stages=(4, 6, 9))
        >>> model: NanoDetPlus = instantiate(config.model)
    """

    backbone: Backbone
    neck: Neck
    head: Head
    aux_neck: Neck | None
    aux_head: AuxHead | None
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        *,
        backbone: Backbone,
        neck: nn.Module | Callable[..., nn.Module],
        head: nn.Module | Callable[..., nn.Module],
        aux_head: nn.Module | Callable[..., nn.Module] | None = None,
        aux_detach_iter: int = 0,
        aux_after_detach: str = "guide",
        freeze_norm: bool = False,
        micro_batches: int = 1,
        input_format: str = "BGR",
        pixel_mean: Sequence[float] | None = None,
        pixel_std: Sequence[float] | None = None,
        score_thresh: float = 0.05,
        nms_thresh: float = 0.6,
        max_detections: int = 100,
        nms: str = "plain",
        vote_thresh: float = 0.65,
        vote_power: float = 8.0,
    ):
        super().__init__()
        for name, value, allowed in (
            ("aux_after_detach", aux_after_detach, AUX_AFTER_DETACH),
            ("input_format", input_format, INPUT_FORMATS),
            ("nms", nms, NMS),
        ):
            if value not in allowed:
                raise ValueError(f"{name} {value!r}; allowed: {', '.join(allowed)}")
        if micro_batches < 1:
            raise ValueError(f"micro_batches {micro_batches}; allowed: 1 or more")
        self.backbone = backbone
        self.neck = bind_part(neck, Neck, input_shapes=backbone.output_shape())
        self.head = bind_part(head, Head, input_shapes=self.neck.output_shape())
        self.aux_neck = None
        self.aux_head = None
        if aux_head is not None:
            self.aux_neck = copy.deepcopy(self.neck)
            self.aux_head = bind_part(
                aux_head,
                AuxHead,
                input_shapes=_doubled(self.neck.output_shape()),
                num_classes=self.head.num_classes,
                reg_max=self.head.reg_max,
            )
        self.aux_detach_iter = aux_detach_iter
        self.aux_after_detach = aux_after_detach
        self.freeze_norm = freeze_norm
        self.micro_batches = micro_batches
        self.select: dict[str, Any] = dict(
            score_thresh=score_thresh,
            nms_thresh=nms_thresh,
            max_detections=max_detections,
            nms=nms,
            vote_thresh=vote_thresh,
            vote_power=vote_power,
        )
        # A backbone of detectron2 that does not say what its images have to be says 0.
        coarsest = max(shape.stride for shape in backbone.output_shape().values())
        self.size_divisibility = math.lcm(
            backbone.size_divisibility or coarsest, self.neck.size_divisibility or 1
        )
        order, mean, std = getattr(backbone, "input_spec", REFERENCE_INPUT)
        self.flip_channels = order != input_format
        self.register_buffer("pixel_mean", _per_channel(pixel_mean or mean), persistent=False)
        self.register_buffer("pixel_std", _per_channel(pixel_std or std), persistent=False)

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def train(self, mode: bool = True) -> NanoDetPlus:
        super().train(mode)
        if self.freeze_norm:
            for norm in batch_norms(self):
                norm.eval()
        return self

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Losses in training, detections in inference.

        Args:
            batched_inputs: per image ``image`` (3, H, W), uint8 or float in [0, 255]; in training
                ``instances`` with ``gt_boxes`` (XYXY, pixels of ``image``) and ``gt_classes``,
                and, if wanted, ``ignore_boxes``; in inference ``height`` and ``width`` of the
                result, those of ``image`` if absent, and ``warp_matrix`` (3, 3) from there to
                ``image`` if it is no plain stretching.

        Returns:
            dict of scalar losses, or a list of ``{"instances": Instances}``.
        """
        images = self.preprocess_image(batched_inputs)
        if not self.training:
            raw, _, priors = self.network(images.tensor)
            return self.inference(raw, priors, images, batched_inputs)
        if self.micro_batches == 1:
            raw, aux_raw, priors = self.network(images.tensor)
        else:
            raw, aux_raw, priors = in_micro_batches(
                self.network, images.tensor, self.micro_batches, model=self
            )
        return self.head.losses(raw, priors, self.ground_truth(batched_inputs), aux_raw)

    def network(self, images: Tensor) -> Outputs:
        """Raw outputs of both heads, the auxiliary one's in training, and the priors (P, 3).

        Args:
            images: (N, 3, H, W), normalised.
        """
        features = self.backbone(images)
        pyramid = self.neck(features)
        raw = self.head(pyramid)
        aux_raw = self.auxiliary_forward(features, pyramid) if self.training else None
        return raw, aux_raw, self.head.priors(pyramid)

    def preprocess_image(self, batched_inputs: list[dict[str, Any]]) -> ImageList:
        """Normalised, padded images (N, 3, H, W) on the model's device."""
        return batch_images(
            batched_inputs,
            mean=self.pixel_mean,
            std=self.pixel_std,
            flip_channels=self.flip_channels,
            divisibility=self.size_divisibility,
        )

    def auxiliary_forward(
        self, features: dict[str, Tensor], pyramid: dict[str, Tensor]
    ) -> Tensor | None:
        """Raw output (N, P, C + 4 * (R + 1)) of the auxiliary branch; None where it takes no part.

        The branch sees the neck's levels first, then its own.
        """
        if self.aux_neck is None or self.aux_head is None:
            return None
        if _training_iteration() >= self.aux_detach_iter:
            if self.aux_after_detach == "drop":
                return None
            features = {name: x.detach() for name, x in features.items()}
            pyramid = {name: x.detach() for name, x in pyramid.items()}
        own = self.aux_neck(features)
        return self.aux_head({k: torch.cat([pyramid[k], own[k]], dim=1) for k in pyramid})

    def auxiliary_parameters(self) -> list[nn.Parameter]:
        """Those that only train along; none without the branch."""
        return [x for name, x in self.named_parameters() if name.startswith("aux_")]

    @property
    def last_auxiliary_step(self) -> int | None:
        """The iteration after which the branch takes no part any more; None if it stays."""
        leaves = self.aux_head is not None and self.aux_after_detach == "drop"
        return self.aux_detach_iter - 1 if leaves else None

    def ground_truth(self, batched_inputs: list[dict[str, Any]]) -> GroundTruth:
        """The batch's boxes, padded, on the model's device."""
        return batch_ground_truth(
            batched_inputs, num_classes=self.head.num_classes, device=self.device
        )

    def inference(
        self,
        raw: Tensor,
        priors: Tensor,
        images: ImageList,
        batched_inputs: list[dict[str, Any]],
    ) -> list[dict[str, Any]]:
        """Detections of each image, in the pixels of its ``height`` and ``width``."""
        predictions = self.head.decode(raw, priors)
        scores = predictions.logits.sigmoid()
        boxes = clip_boxes_to_image(predictions.boxes, images.tensor.shape[-2:])
        sizes = [tuple(size) for size in images.image_sizes]
        detections = select_detections(scores, boxes, sizes, **self.select)
        results = []
        for x, found in zip(batched_inputs, detections):
            height, width = found.image_size
            size = x.get("height", height), x.get("width", width)
            if "warp_matrix" in x:
                found = unwarp(found, x["warp_matrix"], size)
            results.append({"instances": detector_postprocess(found, *size)})
        return results

    def fuse(self) -> NanoDetPlus:
        """Make inference faster, for good: fold batch norms, and drop the auxiliary branch.

        Branches that timm can join, RepVGG's and others', become one convolution. Doing it again
        changes nothing. Detections stay the same but for rounding.

        Raises:
            ValueError: in training mode.
        """
        if self.training:
            raise ValueError("fuse() in training mode; allowed: after eval(), it cannot be undone")
        self.aux_neck = self.aux_head = None
        for part in list(self.modules()):
            join: Any = getattr(part, "reparameterize", None)
            if callable(join):
                join()
        fuse_conv_norm(self, lambda: self.network(self._blank_image()))
        return self

    def _blank_image(self) -> Tensor:
        """A normalised image (1, 3, H, W) of a size that the parts take."""
        size = getattr(self.backbone, "image_size", None) or (BLANK_SIZE, BLANK_SIZE)
        height, width = (
            -(-side // self.size_divisibility) * self.size_divisibility for side in size
        )
        return self.pixel_mean.new_zeros(1, len(self.pixel_mean), height, width)

    def compile(self, **options: Any) -> None:
        """Compile backbone, neck, heads and losses with ``torch.compile``, in place.

        The lists that go in and come out stay outside, where they would break the graph.
        """
        for part in self.children():
            part.compile(**options)
        head: Any = self.head
        head.losses = torch.compile(head.losses, **options)

    def class_rows(self) -> dict[str, slice]:
        """Rows of tensors of the state that belong to classes; see the heads' ``class_rows``."""
        heads: dict[str, AuxHead | None] = {"head": self.head, "aux_head": self.aux_head}
        return {
            f"{part}.{name}": rows
            for part, head in heads.items()
            if head is not None
            for name, rows in head.class_rows().items()
        }


@register(META_ARCH_REGISTRY)
class OneStageDetector(NanoDetPlus):
    """``NanoDetPlus`` by the name that the reference has for it without an auxiliary branch."""


@register(META_ARCH_REGISTRY)
class GFL(OneStageDetector):
    """The same by the name that the reference's first configs have for it."""


def _doubled(shapes: dict[str, ShapeSpec]) -> dict[str, ShapeSpec]:
    return {k: ShapeSpec(channels=2 * x.channels, stride=x.stride) for k, x in shapes.items()}


def _per_channel(values: Sequence[float]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.float32).view(-1, 1, 1)


def _training_iteration() -> int:
    """Iteration of the running detectron2 trainer, which survives a resume; 0 outside of one."""
    try:
        return get_event_storage().iter
    except AssertionError:
        return 0
