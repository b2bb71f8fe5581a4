"""The networks that are exported, and the facts about them.

Letters: N images, P priors, C classes, R reg_max.
"""

from __future__ import annotations

import copy
import dataclasses
import platform
from collections.abc import Sequence
from importlib import metadata as packages
from typing import Any

import torch
from detectron2.config import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image

from nanodet_d2 import __version__
from nanodet_d2.checkpoint import load_weights
from nanodet_d2.checkpoint.fetching import local_path, sha256
from nanodet_d2.checkpoint.loading import AUX_PARTS
from nanodet_d2.data.splits import names_for_model
from nanodet_d2.modeling import NanoDetPlus
from nanodet_d2.modeling.backbone import without_pretrained_weights
from nanodet_d2.modeling.meta_arch.nanodet_plus import REFERENCE_INPUT
from nanodet_d2.resolve import resolve
from nanodet_d2.runtime.metadata import ExportMetadata, InputDescription, check_size

VERSIONED = (
    "torch", "onnx", "onnxscript", "onnxslim", "onnxruntime", "openvino", "nncf", "pnnx", "ncnn",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A config's detector with a checkpoint's weights, in evaluation mode on the CPU."""

    model: NanoDetPlus
    metadata: ExportMetadata


def load_model(
    source: str,
    checkpoint: str | None = None,
    *,
    input_size: Sequence[int] | None = None,
    overrides: Sequence[str] = (),
    trust: bool = False,
) -> LoadedModel:
    """Build a model and load a checkpoint that fits it as a whole.

    Args:
        source: what ``nanodet_d2.resolve.resolve`` knows: a config, the ``config.yaml`` that a
            training wrote, or a checkpoint that a training wrote, which needs nothing else.
        checkpoint: path or URL of any file that ``load_weights`` knows; the source's own if None.
        input_size: (height, width) in place of the config's.
        overrides: ``key=value`` of the config.
        trust: let a checkpoint name any code to build its model with.

    Raises:
        FileNotFoundError: if a file is not there.
        ValueError: for a source that is refused, a checkpoint that does not fit, or an input that
            cannot be exported.
    """
    resolved = resolve(source, overrides, trust=trust)
    checkpoint = checkpoint or resolved.weights()
    cfg = resolved.cfg
    _refuse_other_resize(cfg)
    with without_pretrained_weights():
        model = instantiate(cfg.model).eval()
    load_weights(model, checkpoint, require_all=True)
    height, width = input_size or cfg.data.input_size
    check_size((height, width), model.size_divisibility)
    metadata = ExportMetadata(
        name=resolved.name,
        kind="raw",
        class_names=tuple(names_for_model(cfg.data, model.head.num_classes)),
        strides=tuple(model.head.strides),
        reg_max=model.head.reg_max,
        input=InputDescription(
            name="data",
            height=height,
            width=width,
            dynamic=False,
            channel_order=getattr(model.backbone, "input_spec", REFERENCE_INPUT)[0],
            mean=tuple(round(float(x), 6) for x in model.pixel_mean.flatten()),
            std=tuple(round(float(x), 6) for x in model.pixel_std.flatten()),
            size_divisor=model.size_divisibility,
        ),
        outputs=("output",),
        score_threshold=model.select["score_thresh"],
        nms_threshold=model.select["nms_thresh"],
        max_detections=model.select["max_detections"],
        versions=versions(),
        checkpoint_sha256=sha256(local_path(checkpoint)),
    )
    return LoadedModel(model, metadata)


def describe_source(
    source: str, *, overrides: Sequence[str] = (), trust: bool = False
) -> dict[str, Any]:
    """What a config, a name or a checkpoint is, by name; no weights are loaded or fetched.

    Args:
        source, overrides, trust: as of :func:`load_model`.

    Raises:
        FileNotFoundError, ValueError: as :func:`load_model`.
    """
    resolved = resolve(source, overrides, trust=trust)
    with without_pretrained_weights():
        model = instantiate(resolved.cfg.model)
    sizes = {name: x.numel() for name, x in model.named_parameters()}
    names = names_for_model(resolved.cfg.data, model.head.num_classes)
    facts = {
        "source": source,
        "name": resolved.name,
        "config": resolved.config_file or "in the checkpoint",
        "input": list(resolved.cfg.data.input_size),
        "classes": len(names),
        "class_names": names,
        "backbone": type(model.backbone).__name__,
        "strides": list(model.head.strides),
        "parameters": sum(n for name, n in sizes.items() if not name.startswith(AUX_PARTS)),
        "parameters_in_training": sum(sizes.values()),
        "score_threshold": model.select["score_thresh"],
        "nms_threshold": model.select["nms_thresh"],
    }
    if resolved.checkpoint is not None:
        facts["sha256"] = sha256(local_path(resolved.checkpoint))
        facts["nanodet_d2"] = resolved.version
    return facts


def network(model: NanoDetPlus, kind: str) -> nn.Module:
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


def versions() -> dict[str, str]:
    """Of this package and of those that it exports with, where they are installed."""
    found = {"nanodet_d2": __version__, "python": platform.python_version()}
    for name in VERSIONED:
        try:
            found[name] = packages.version(name)
        except packages.PackageNotFoundError:
            continue
    return found


def _refuse_other_resize(cfg: DictConfig) -> None:
    augmentations = OmegaConf.select(cfg, "dataloader.test.mapper.augmentations")
    for augmentation in augmentations or ():
        if augmentation.get("keep_ratio"):
            raise ValueError(
                "the config evaluates with keep_ratio=True; allowed for an export: False "
                "(images are stretched to the input size)"
            )
