#!/usr/bin/env python
"""ATSS over a batch at once, against a per-image implementation of the same formulas."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT / "projects" / "nanodet_plus" / "benchmarks"), str(ROOT / "tests")]

import common  # noqa: E402
import oracle  # noqa: E402
import torch  # noqa: E402

from nanodet_d2.modeling import ATSSAssigner  # noqa: E402
from nanodet_d2.modeling.head import GroundTruth  # noqa: E402
from nanodet_d2.modeling.head.box_coding import grid_priors  # noqa: E402

STRIDES = (8, 16, 32)
CLASSES = 80
BAR = 3


def main() -> None:
    parser = common.parser(__doc__, output="atss.json")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--boxes", type=int, default=7, help="per image")
    parser.add_argument("--size", type=int, default=320, help="of the images, in pixels")
    args = parser.parse_args()
    common.start(args)
    device = torch.device(args.device)

    sizes = [(-(-args.size // s),) * 2 for s in STRIDES]
    priors = grid_priors(sizes, STRIDES, device, offset=0.5)
    extent = torch.rand(args.images, args.boxes, 2).square() * args.size + 8
    centre = torch.rand(args.images, args.boxes, 2) * args.size
    boxes = torch.cat([centre - extent / 2, centre + extent / 2], dim=-1)
    boxes = boxes.clamp(0, args.size).to(device)
    classes = torch.randint(CLASSES, (args.images, args.boxes), device=device)
    valid = torch.ones_like(classes, dtype=torch.bool)
    truth = GroundTruth(boxes, classes, valid, boxes.new_zeros(args.images, 1, 4))
    predicted = torch.rand(args.images, len(priors), 4, device=device) * args.size
    logits = torch.zeros(args.images, len(priors), CLASSES, device=device)
    assigner = ATSSAssigner()

    def batched() -> torch.Tensor:
        return assigner(logits, predicted, priors, truth).labels

    def per_image() -> torch.Tensor:
        found = [oracle.assign_atss(priors, b, c, CLASSES)[0] for b, c in zip(boxes, classes)]
        return torch.stack(found)

    different = int((batched() != per_image()).sum())
    sides = {"batched": batched, "per image": per_image}
    times = common.median_ms(sides, repeats=args.repeats, device=args.device)
    ratio = times["per image"] / times["batched"]
    common.show(
        f"{args.images} images of {args.size} px, {args.boxes} boxes each: batched "
        f"{times['batched']:.1f} ms, per image {times['per image']:.1f} ms, {ratio:.1f} times as "
        f"fast (bar: {BAR}); {different} labels differ"
    )
    common.save(args.output, {"ms": times, "ratio": ratio, "different": different}, args.device)


if __name__ == "__main__":
    main()
