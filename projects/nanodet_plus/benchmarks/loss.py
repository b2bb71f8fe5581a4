#!/usr/bin/env python
"""Label assignment and losses, batched, against a per-image implementation of the same formulas.

Both branches (main and auxiliary), as in training. On a CPU the forward pass counts, on a GPU
forward and backward; there it is also checked that nothing in between waits for the device.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

import common
import torch
from detectron2.layers import ShapeSpec
from torch import Tensor

from nanodet_d2.modeling import NanoDetPlusHead
from nanodet_d2.modeling.head import GroundTruth
from nanodet_d2.modeling.head.box_coding import encode_distances, grid_priors

sys.path.insert(0, str(common.ROOT / "tests"))
import oracle  # noqa: E402

STRIDES = (8, 16, 32, 64)
BAR = {"cpu": 3, "cuda": 10}


class Batch(NamedTuple):
    """Predictions of a half-trained network, and the ground truth of its images."""

    head: NanoDetPlusHead
    raw: Tensor  # (N, P, C + 4 (R + 1))
    aux_raw: Tensor  # of the same shape
    priors: Tensor  # (P, 3)
    boxes: Tensor  # (N, G, 4)
    classes: Tensor  # (N, G)

    def truth(self) -> GroundTruth:
        valid = torch.ones_like(self.classes, dtype=torch.bool)
        return GroundTruth(self.boxes, self.classes, valid, self.boxes.new_zeros(len(valid), 1, 4))

    def batched(self) -> dict[str, Tensor]:
        return self.head.losses(self.raw, self.priors, self.truth(), self.aux_raw)

    def per_image(self) -> dict[str, Tensor]:
        truth = list(zip(self.boxes, self.classes))
        return oracle.losses(self.raw, self.aux_raw, self.priors, truth)


def make_batch(
    images: int, boxes_per_image: int, size: int, device: str, num_classes: int = 80
) -> Batch:
    """Every prior predicts some box of its image and that box's class, more or less."""
    generator = torch.Generator().manual_seed(0)
    shapes = {f"p{i}": ShapeSpec(channels=96, stride=s) for i, s in enumerate(STRIDES, start=3)}
    head = NanoDetPlusHead(shapes, num_classes=num_classes)
    sizes = [(-(-size // s),) * 2 for s in STRIDES]
    priors = grid_priors(sizes, STRIDES, torch.device("cpu"))
    extent = torch.rand(images, boxes_per_image, 2, generator=generator).square() * size + 8
    center = torch.rand(images, boxes_per_image, 2, generator=generator) * size
    boxes = torch.cat([center - extent / 2, center + extent / 2], dim=-1).clamp(0, size)
    classes = torch.randint(num_classes, (images, boxes_per_image), generator=generator)

    def predict() -> Tensor:
        shape = (images, len(priors))
        owner = torch.randint(boxes_per_image, shape, generator=generator)
        wanted = boxes.gather(1, owner.unsqueeze(-1).expand(-1, -1, 4))
        distances = encode_distances(priors, wanted, head.reg_max).unsqueeze(-1)
        box_logits = -2 * (distances - torch.arange(head.reg_max + 1)).square()
        logits = torch.randn(*shape, num_classes, generator=generator) - 5
        logits.scatter_add_(
            -1, classes.gather(1, owner).unsqueeze(-1), torch.full((*shape, 1), 3.0)
        )
        noise = torch.randn(*box_logits.shape, generator=generator)
        raw = torch.cat([logits, (box_logits + noise).flatten(-2)], dim=-1)
        # The layout that a head's output has: one map after another.
        return raw.transpose(1, 2).contiguous().to(device).requires_grad_().transpose(1, 2)

    raw, aux_raw = predict(), predict()
    return Batch(head.to(device), raw, aux_raw, *(x.to(device) for x in (priors, boxes, classes)))


def backward(forward: Callable[[], dict[str, Tensor]], batch: Batch) -> Callable[[], None]:
    def step() -> None:
        total = sum(forward().values())
        torch.autograd.grad(total, [batch.raw, batch.aux_raw])

    return step


def refuse_synchronisation(step: Callable[[], None]) -> None:
    """Run a step so that torch raises where the host waits for the GPU."""
    step()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    common.show("no host synchronisation: checked")


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0], output="loss.json")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--boxes", type=int, default=7, help="per image")
    parser.add_argument("--size", type=int, default=416, help="of the images, in pixels")
    args = parser.parse_args()
    common.start(args)
    kind = args.device.partition(":")[0]
    batch = make_batch(args.images, args.boxes, args.size, args.device)

    ours, theirs = batch.batched(), batch.per_image()
    worst = max(abs(float(ours[k]) / float(theirs[k]) - 1) for k in theirs)
    sides = {"batched": batch.batched, "per image": batch.per_image}
    if kind == "cuda":
        sides = {name: backward(call, batch) for name, call in sides.items()}
        refuse_synchronisation(sides["batched"])
    times = common.median_ms(sides, repeats=args.repeats, device=args.device)
    ratio = times["per image"] / times["batched"]
    what = "forward and backward" if kind == "cuda" else "forward"
    common.show(
        f"{args.images} images of {args.size} px, {args.boxes} boxes each, {what}: "
        f"batched {times['batched']:.1f} ms, per image {times['per image']:.1f} ms, "
        f"{ratio:.1f} times as fast (bar: {BAR.get(kind, '-')}); "
        f"losses differ by {worst:.1e} at most"
    )
    common.save(args.output, {"ms": times, "ratio": ratio, "difference": worst}, args.device)


if __name__ == "__main__":
    main()
