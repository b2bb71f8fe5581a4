"""The largest training batch that fits into a GPU's memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import instantiate
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm
from omegaconf import DictConfig
from torch import Tensor

from .building import build_model, build_optimizer_of, uses_gpu
from .ranks import on_all_ranks

logger = logging.getLogger(__name__)

AUTO = "auto"
_TRIED = (4, 8, 16)  # images per rank, to see what each of them costs
_MULTIPLE = 8  # the result is one of it
_FEWEST_BOXES = 50  # per image in the trial
_MOST_BOXES = 1000


def choose_batch_size(cfg: DictConfig) -> None:
    """Replace a ``dataloader.train.total_batch_size`` of "auto", in place.

    A step is tried with a few sizes, and the memory extrapolated to ``train.auto_batch_memory`` of
    what is free on the GPU. All ranks take the batch of the smallest.

    Raises:
        ValueError: without a GPU, or where not even the smallest batch fits.
    """
    if cfg.dataloader.train.total_batch_size != AUTO:
        return
    if not uses_gpu(cfg):
        raise ValueError(
            f"dataloader.train.total_batch_size=auto needs a GPU, found train.device="
            f"{cfg.train.device}; give a number"
        )
    device = torch.device("cuda", torch.cuda.current_device())
    boxes = boxes_per_image(instantiate(cfg.dataloader.train.dataset))
    budget = int(cfg.train.auto_batch_memory * torch.cuda.mem_get_info(device)[0])
    used: dict[int, int] = {}

    def find() -> int:
        used.update(measure_memory(_trial(cfg, boxes), device))
        return largest_batch(used, budget)

    per_rank = min(on_all_ranks(find))
    cfg.dataloader.train.total_batch_size = per_rank * comm.get_world_size()
    logger.info(
        "Batch of %d per GPU: a step of %s images used %s MiB, allowed are %d MiB",
        per_rank,
        ", ".join(map(str, used)),
        ", ".join(f"{x / 2**20:.0f}" for x in used.values()),
        budget // 2**20,
    )


def boxes_per_image(records: Sequence[Mapping[str, Any]]) -> int:
    """Boxes that a trial image needs: as many as any of the data set, within limits."""
    most = max((len(x.get("annotations", ())) for x in records), default=0)
    return min(max(most, _FEWEST_BOXES), _MOST_BOXES)


def largest_batch(used: Mapping[int, int], budget: int) -> int:
    """The largest multiple of 8 whose memory, on a line through those measured, fits.

    Args:
        used: bytes that a step took, by batch size.
        budget: bytes that it may take.

    Raises:
        ValueError: if there is none.
    """
    slope, start = np.polyfit(list(used), list(used.values()), deg=1)
    batch = int((budget - start) / max(slope, 1.0)) // _MULTIPLE * _MULTIPLE
    if batch < _MULTIPLE:
        raise ValueError(
            f"a step of {min(used)} images takes {min(used.values()) / 2**20:.0f} MiB; allowed are "
            f"{budget / 2**20:.0f} MiB: no batch of {_MULTIPLE} fits"
        )
    return batch


def measure_memory(step: Callable[[int], Any], device: torch.device) -> dict[int, int]:
    """Peak bytes that steps of a few batch sizes take on a GPU."""
    used = {}
    for batch in _TRIED:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        step(batch)
        used[batch] = torch.cuda.max_memory_reserved(device)
    torch.cuda.empty_cache()
    return used


def _trial(cfg: DictConfig, boxes: int) -> Callable[[int], None]:
    """A training step of the config's model on random images, by batch size."""
    model = build_model(cfg, checkpoint_follows=True).train()  # its memory alone is of interest
    optimizer = build_optimizer_of(cfg, model)
    size_of_weights = sum(x.numel() * x.element_size() for x in model.state_dict().values())
    # What a training holds beside its step: the average, the last good state (weights, average,
    # two moments), and the gradients that torch's distributed wrapper sends.
    copies = 5 + (comm.get_world_size() > 1)
    beside = torch.empty(copies * size_of_weights, dtype=torch.uint8, device=cfg.train.device)
    sizes = [tuple(size) for size in cfg.dataloader.train.get("sizes", ())]
    height, width = max(sizes or [tuple(cfg.data.input_size)], key=lambda size: size[0] * size[1])

    def step(batch: int, beside: Tensor = beside) -> None:
        amp = cfg.train.amp
        with torch.autocast("cuda", dtype=getattr(torch, amp.dtype), enabled=amp.enabled):
            losses = model([_random_sample(height, width, boxes) for _ in range(batch)])
        optimizer.zero_grad(set_to_none=True)
        sum(losses.values()).backward()
        optimizer.step()

    return step


def _random_sample(height: int, width: int, count: int) -> dict[str, Any]:
    corners = torch.rand(count, 2, 2) * torch.tensor([width, height])
    boxes = torch.cat([corners.amin(dim=1), corners.amax(dim=1)], dim=1)
    classes = torch.zeros(count, dtype=torch.int64)
    return {
        "image": torch.randint(0, 256, (3, height, width), dtype=torch.uint8),
        "instances": Instances((height, width), gt_boxes=Boxes(boxes), gt_classes=classes),
    }
