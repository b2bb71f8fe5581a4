"""``nanodet-d2 kit``: on an exported file it needs neither torch nor detectron2."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..verb import Outcome

HELP = "write what a port of an exported file's pre- and post-processing is checked against"
EXAMPLES = (
    "nanodet-d2 kit model.onnx",
    "nanodet-d2 kit model.onnx --images photos --output output/kit --json",
)
TAKES_OVERRIDES = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", metavar="MODEL", help="an exported file; a TorchScript file is a program")
    add("--images", type=Path, nargs="+", default=[], help="pictures, or folders; a wide, a tall "
        "and another one are taken (default: drawn ones)")  # fmt: skip
    add("--output", type=Path, help="folder (default: beside the file, <its stem>_<format>_kit)")
    add("--metadata", type=Path, help="json in place of the file's own metadata")
    add("--input-size", type=int, nargs=2, metavar=("H", "W"), help="of a dynamic file")


def run(args: argparse.Namespace) -> Outcome:
    from nanodet_d2.conformance import write_kit

    folder = write_kit(
        args.model,
        args.output,
        images=args.images,
        metadata=args.metadata,
        input_size=args.input_size,
    )
    return Outcome(f"{folder}: contract.json, expected.json, pictures and their stages",
                   {"kit": str(folder)})  # fmt: skip
