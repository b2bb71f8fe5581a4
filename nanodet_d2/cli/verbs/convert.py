"""``nanodet-d2 convert``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..verb import Outcome

HELP = (
    "write a checkpoint of the reference for detectron2's tools, or one of ours for the reference"
)
EXAMPLES = (
    "nanodet-d2 convert nanodet-plus-m_416.ckpt --output nanodet_plus_m_416.pth",
    "nanodet-d2 convert model_final.pth --to reference --output reference.ckpt",
)
TAKES_OVERRIDES = False
TARGETS = ("detectron2", "reference")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", metavar="CHECKPOINT", help="path or URL: .ckpt, .pth or .safetensors")
    add("--to", choices=TARGETS, default=TARGETS[0], help="whose names and layout "
        "(default: detectron2)")  # fmt: skip
    add("--output", type=Path, required=True, help="file to write: .pth, or .safetensors")


def run(args: argparse.Namespace) -> Outcome:
    from nanodet_d2.checkpoint.convert import convert_to_detectron2, convert_to_reference

    convert = convert_to_reference if args.to == "reference" else convert_to_detectron2
    count = convert(args.source, args.output)
    facts = {"source": args.source, "output": str(args.output), "tensors": count}
    return Outcome(f"{count} tensors written to {args.output}", facts)
