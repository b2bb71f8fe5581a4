"""``nanodet-d2 ship``."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from ..data_set import add_data, data_of
from ..sources import SOURCE, is_exported, weights_of
from ..verb import Outcome

HELP = "measure every format, precision and input size, and write the smallest file of a budget"
EXAMPLES = (
    "nanodet-d2 ship model_final.pth --data my_data --max-ms 8",
    "nanodet-d2 ship model_final.pth --data my/val.json --images my/val --calibration photos "
    "--formats onnx ncnn --sizes 320 416 --max-ap-drop 1",
)
TAKES_OVERRIDES = True
_SIZE = re.compile(r"(\d+)(?:x(\d+))?")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", metavar=SOURCE, help="a checkpoint that a training wrote, a config with "
        "--weights, or a name of the zoo")  # fmt: skip
    add("--weights", help="a config's checkpoint, path or URL")
    add_data(parser)
    add("--max-ms", type=float, help="from an image to its boxes, median (default: any)")
    add("--max-ap-drop", type=float, default=0.5, help="below PyTorch in float32 at the model's "
        "own size (default: %(default)s)")  # fmt: skip
    add("--threads", type=int, default=2, help="of the engines (default: %(default)s)")
    add("--calibration", type=Path, metavar="FOLDER", help="pictures for INT8, which is left out "
        "without them")  # fmt: skip
    add("--formats", nargs="+", default=[], help="(default: all that are installed)")
    add("--sizes", nargs="+", type=size, default=[], metavar="S|HxW", help="of the input "
        "(default: the model's own, and seven from 256 to 640)")  # fmt: skip
    add("--rounds", type=int, default=7, help="of times, in turns (default: %(default)s)")
    add("--other", type=Path, action="append", default=[], metavar="ONNX", help="a file of another "
        "project, for comparison, with the same classes; its --decoding follows")  # fmt: skip
    add("--decoding", action="append", default=[], metavar="NAME|JSON", help="of --other: deimv2, "
        "picodet, yolox, or a json as nanodet_d2/benchmark/decoding.py explains")  # fmt: skip
    add("--output", type=Path, default=Path("output/ship"), help="folder; what was measured there "
        "before is not measured again (default: %(default)s)")  # fmt: skip


def size(text: str) -> tuple[int, int]:
    """(height, width) of "320" or "320x256"."""
    found = _SIZE.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: 320, or 320x256 (height, width)")
    return int(found[1]), int(found[2] or found[1])


def run(args: argparse.Namespace) -> Outcome:
    from nanodet_d2.benchmark.decoding import find_decoding
    from nanodet_d2.export.loading import LoadedModel, load_model
    from nanodet_d2.shipping.command import ship
    from nanodet_d2.shipping.wish import Wish

    data = data_of(args)
    if data is None:
        raise ValueError("--data is needed: AP is measured on it")
    if is_exported(args.source):
        raise ValueError(f"{args.source} is an exported file; give its checkpoint")
    if len(args.other) != len(args.decoding):
        raise ValueError(f"{len(args.other)} --other, {len(args.decoding)} --decoding: each needs "
                         "one")  # fmt: skip
    wish = Wish(
        json_file=data[0],
        images=data[1],
        output=args.output,
        max_ms=args.max_ms,
        max_ap_drop=args.max_ap_drop,
        threads=args.threads,
        calibration=args.calibration,
        formats=tuple(dict.fromkeys(args.formats)),
        sizes=tuple(dict.fromkeys(args.sizes)),
        others=tuple(zip(args.other, map(find_decoding, args.decoding))),
        rounds=args.rounds,
    )
    wish.check()

    def load(input_size: Any) -> LoadedModel:
        return load_model(
            args.source,
            weights_of(args.weights),
            input_size=input_size,
            overrides=args.overrides,
        )

    text, facts, shipped = ship(load, wish)
    return Outcome(text, facts, code=int(not shipped))
