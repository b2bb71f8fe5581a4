"""``nanodet-d2 check``: it needs neither torch nor detectron2, nor an engine."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..verb import Outcome

HELP = "compare what a port in any language gives for a kit's pictures, and name its mistake"
EXAMPLES = (
    "nanodet-d2 check model_onnx_kit my_port/result.json",
    "nanodet-d2 check model_onnx_kit model_onnx_kit/expected.json --json",
)
TAKES_OVERRIDES = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("kit", metavar="KIT", type=Path, help="a folder that export --kit or kit wrote")
    add("result", metavar="RESULT", type=Path, help='a json as the kit\'s expected.json: '
        '{"pictures": {"picture_0.png": {"tensor": …, "raw": …, "candidates": …, "kept": …, '
        '"boxes": …}}}, of each picture what there is')  # fmt: skip


def run(args: argparse.Namespace) -> Outcome:
    from nanodet_d2.conformance import check, read_kit, read_result

    kit = read_kit(args.kit)
    result = read_result(args.result, kit.metadata, [x.name for x in kit.pictures])
    report = check(kit, result)
    return Outcome(report.text(), report.facts(), code=int(not report.same))
