"""A loss that is not finite: what it takes to see it again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from nanodet_d2.checkpoint import read_file, replace_file


class StepLosses(NamedTuple):
    """Losses of one rank in one iteration, and the image files of its batch."""

    iteration: int
    losses: dict[str, float]
    files: list[str]

    @property
    def finite(self) -> bool:
        return all(map(math.isfinite, self.losses.values()))


def save_report(
    broken: StepLosses, folder: str, *, model: nn.Module, data_loader: Any, seed: int | None
) -> Path:
    """Write losses, image files, weights and batch of a step to ``nonfinite_<iteration>.pth``.

    The batch is made again, which a loader with ``start_at`` can. With a fused optimiser that clips
    the weights are still those of the step; any other has updated them since. Statistics of batch
    norms may be those after the step; training does not use them.
    """
    path = Path(folder) / f"nonfinite_{broken.iteration:07d}.pth"
    batch: list[dict[str, Any]] = []
    if hasattr(data_loader, "start_at"):
        data_loader.start_at(broken.iteration)
        batch = next(iter(data_loader))
    model = getattr(model, "module", model)
    report = {
        **broken._asdict(),
        "seed": seed,
        "model": {k: v.detach().cpu() for k, v in model.state_dict().items()},
        "batch": [_plain(sample) for sample in batch],
    }
    replace_file(path, report)
    return path


def replay(model: nn.Module, path: str) -> dict[str, Tensor]:
    """Losses of a reported step, made again; the model takes the weights of the report.

    Args:
        model: of the same config, in training mode, on any device.
        path: of the report.

    Returns:
        the loss terms by name, as the model gives them.

    Raises:
        FileNotFoundError, ValueError: if there is no such file, or it is no checkpoint.
        RuntimeError: for the weights of another config.
    """
    report = read_file(path)
    model.load_state_dict(report["model"])
    with EventStorage(report["iteration"]):
        return model([_sample(x) for x in report["batch"]])


def _plain(sample: Mapping[str, Any]) -> dict[str, Any]:
    """A sample of nothing but tensors and text, which can be read without running anything."""
    instances = sample["instances"]
    return {
        "file_name": str(sample.get("file_name", "")),
        "image": sample["image"],
        "boxes": instances.gt_boxes.tensor,
        "classes": instances.gt_classes,
        "ignored": sample.get("ignore_boxes", Boxes(torch.zeros(0, 4))).tensor,
    }


def _sample(plain: Mapping[str, Any]) -> dict[str, Any]:
    size = tuple(plain["image"].shape[-2:])
    boxes = Boxes(plain["boxes"])
    return {
        "file_name": plain["file_name"],
        "image": plain["image"],
        "instances": Instances(size, gt_boxes=boxes, gt_classes=plain["classes"]),
        "ignore_boxes": Boxes(plain["ignored"]),
    }
