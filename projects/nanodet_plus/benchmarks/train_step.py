#!/usr/bin/env python
"""One training step: auxiliary branch, memory layout, optimiser and torch.compile.

Each row differs from the first one in what it names. A step is the trainer's: forward, backward,
clipping, AdamW, averages. "operators" are PyTorch's that a step calls, from Python and autograd,
and in brackets all of them, with those that these call in turn; on a GPU each of the former
launches a kernel or two.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import common
import torch
from detectron2.config import LazyConfig
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn

from nanodet_d2.config import apply_overrides
from nanodet_d2.engine import EMAHook, ModelEMA
from nanodet_d2.engine.building import build_model, build_optimizer_of
from nanodet_d2.engine.trainer import Trainer

CLASSES = 80  # as in COCO, without its annotations
BASE = "guide"
VARIANTS: dict[str, tuple[bool, list[str]]] = {  # whether after detachment, and the overrides
    "before detachment": (False, []),
    BASE: (True, ["model.aux_after_detach=guide"]),
    "guide, light head": (
        True,
        ["model.aux_after_detach=guide", "model.aux_head.use_depthwise=true"],
    ),
    "drop": (True, ["model.aux_after_detach=drop"]),
    "drop, not channels_last": (
        True,
        ["model.aux_after_detach=drop", "train.channels_last=false"],
    ),
    "drop, not fused": (True, ["model.aux_after_detach=drop", "optimizer.fused=false"]),
}
COMPILED = {
    "drop, compiled": (True, ["model.aux_after_detach=drop", "train.compile.enabled=true"]),
}
BAR = 2.5


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0], output="train_step.json")
    parser.add_argument("--config-file", default=str(common.CONFIGS / "nanodet_plus_m_416.py"))
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--boxes", type=int, default=7, help="per image")
    parser.add_argument("--compile", action="store_true", help="also with torch.compile")
    parser.add_argument("--amp", action="store_true", help="mixed precision (GPU)")
    parser.set_defaults(repeats=5)
    args = parser.parse_args()
    common.start(args)
    variants = {**VARIANTS, **(COMPILED if args.compile else {})}
    steps = {}
    for name, (detached, overrides) in variants.items():
        cfg = apply_overrides(LazyConfig.load(args.config_file), overrides)
        batch = make_batch(args.images, args.boxes, cfg.data.input_size)
        amp = torch.float16 if args.amp else None
        steps[name] = make_step(cfg, batch, args.device, detached=detached, amp=amp)
    times = common.median_ms(steps, repeats=args.repeats, device=args.device)
    calls = {name: common.operator_calls(step) for name, step in steps.items()}
    rows = [
        [name, f"{ms:.0f}", f"{times[BASE] / ms:.2f}", f"{calls[name][0]} ({calls[name][1]})"]
        for name, ms in times.items()
    ]
    height, width = cfg.data.input_size
    common.show(f"{args.images} images of {width} x {height} px, {args.boxes} boxes each")
    common.show(
        common.table(rows, ["step", "ms", f"times {BASE} (bar for drop: {BAR})", "operators"])
    )
    common.save(args.output, {"ms": times, "operators": calls}, args.device)


def make_batch(images: int, boxes_per_image: int, size: list[int]) -> list[dict[str, Any]]:
    """Random images with random boxes."""
    generator = torch.Generator().manual_seed(0)
    height, width = size
    limit = torch.tensor([width, height])
    batch = []
    for _ in range(images):
        extent = torch.rand(boxes_per_image, 2, generator=generator) * limit * 0.4 + 8
        low = torch.rand(boxes_per_image, 2, generator=generator) * (limit - extent)
        instances = Instances(
            (height, width),
            gt_boxes=Boxes(torch.cat([low, low + extent], dim=1)),
            gt_classes=torch.randint(0, CLASSES, (boxes_per_image,), generator=generator),
        )
        image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)
        batch.append({"image": image, "instances": instances})
    return batch


def make_step(
    cfg: Any,
    batch: list[dict[str, Any]],
    device: str,
    *,
    detached: bool,
    amp: torch.dtype | None = None,
    wrap: Callable[[nn.Module], nn.Module] = lambda model: model,
) -> Callable[[], None]:
    """A training step on the batch, before or after the auxiliary branch is detached.

    ``wrap`` may put the model into a distributed wrapper.
    """
    trainer = make_trainer(
        cfg, itertools.repeat(batch), device, detached=detached, amp=amp, wrap=wrap
    )
    return lambda: take_step(trainer)


def make_trainer(
    cfg: Any,
    batches: Iterable[list[dict[str, Any]]],
    device: str,
    *,
    detached: bool,
    amp: torch.dtype | None = None,
    wrap: Callable[[nn.Module], nn.Module] = lambda model: model,
) -> Trainer:
    """A trainer that is ready for its first step, with the average of the weights as a hook."""
    cfg.model.head.num_classes = CLASSES
    cfg.model.aux_detach_iter = 0 if detached else 1
    cfg.train.device = device
    model = build_model(cfg).train()
    optimizer = build_optimizer_of(cfg, model)
    if cfg.train.compile.enabled:
        model.compile(**cfg.train.compile.settings)
    trainer = Trainer(wrap(model), batches, optimizer, log_period=10**9, amp=amp)  # no reading
    trainer.register_hooks([EMAHook(ModelEMA(model))])
    trainer.iter, trainer.start_iter, trainer.max_iter = 0, 0, 10**9
    with EventStorage(0) as trainer.storage:
        trainer.before_train()
    return trainer


def take_step(trainer: Trainer) -> None:
    """One step; the trainer's iteration stays 0, and the auxiliary branch with it as it is."""
    with trainer.storage:
        trainer.run_step()
        trainer.after_step()


if __name__ == "__main__":
    main()
