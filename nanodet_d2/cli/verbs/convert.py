"""``nanodet-d2 convert``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..verb import Outcome

if TYPE_CHECKING:
    from nanodet_d2.checkpoint import Card

HELP = (
    "write a checkpoint of the reference for detectron2's tools, or one of ours for the reference"
)
EXAMPLES = (
    "nanodet-d2 convert nanodet-plus-m_416.ckpt --config nanodet-plus-m-416 --output 416.pth",
    "nanodet-d2 convert model_final.pth --to reference --output reference.ckpt",
)
TAKES_OVERRIDES = True
TARGETS = ("detectron2", "reference")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", metavar="CHECKPOINT", help="path or URL: .ckpt, .pth or .safetensors")
    add("--to", choices=TARGETS, default=TARGETS[0], help="whose names and layout "
        "(default: detectron2)")  # fmt: skip
    add("--config", help="config, or name of the zoo, that the weights are of: the file then knows "
        "its classes, input size and parts, as one that a training wrote")  # fmt: skip
    add("--output", type=Path, required=True, help="file to write: .pth, or .safetensors")


def run(args: argparse.Namespace) -> Outcome:
    from nanodet_d2.checkpoint.convert import convert_to_detectron2, convert_to_reference

    if args.to == "reference":
        if args.config:
            raise ValueError("--config with --to reference, whose files say nothing of themselves")
        count = convert_to_reference(args.source, args.output)
    else:
        count = convert_to_detectron2(args.source, args.output, card=_card(args))
    facts = {"source": args.source, "output": str(args.output), "tensors": count}
    return Outcome(f"{count} tensors written to {args.output}", facts)


def _card(args: argparse.Namespace) -> Card | None:
    """What the config says of its model, which the weights have to fit."""
    if args.config is None:
        return None
    from nanodet_d2.checkpoint import load_weights
    from nanodet_d2.engine.building import build_model, describe
    from nanodet_d2.resolve import resolve

    cfg = resolve(args.config, args.overrides).cfg
    model = build_model(cfg, checkpoint_follows=True)
    load_weights(model, args.source, require_all=True)
    return describe(cfg, model)
