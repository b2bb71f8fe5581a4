"""``nanodet-d2 eval``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from nanodet_d2 import zoo

from ..data_set import add_data, data_of
from ..sources import (
    NMS,
    NMS_HELP,
    SOURCE,
    SOURCE_HELP,
    Options,
    add_tiles,
    is_exported,
    open_detector,
    tiles_of,
    weights_of,
    with_weights,
)
from ..verb import Outcome

HELP = "score a model or an exported file with detectron2's COCO evaluation"
EXAMPLES = (
    "nanodet-d2 eval model.onnx --data my_data",
    "nanodet-d2 eval model_final.pth --data my/val.json --images my/val --output output/eval",
)
TAKES_OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", metavar=SOURCE, help=SOURCE_HELP)
    add("--weights", help="a config's checkpoint, path or URL")
    add_data(parser, absent="; the config's data.val if absent")
    add("--output", type=Path, help="folder for metrics and report (default of a config: its own)")
    add("--metadata", type=Path, help="json in place of an exported file's own metadata")
    add("--nms", choices=NMS, help=NMS_HELP)
    add("--threads", type=int, help="of an exported file's engine")
    add("--device", help="where to compute, e.g. cpu or cuda")
    add("--max-pixels", type=int, help="larger pictures are refused")
    add("--num-gpus", type=int, default=1, help="that share the pictures of a config (default: 1)")
    add_tiles(parser)


def run(args: argparse.Namespace) -> Outcome:
    if args.tiles is not None and not is_exported(args.source):
        raise ValueError("--tiles is for an exported file; a config is evaluated as it trains")
    results = _of_file(args) if is_exported(args.source) else _of_config(args)
    return Outcome(facts=results)


def _of_file(args: argparse.Namespace) -> dict[str, Any]:
    from detectron2.evaluation import print_csv_format

    from nanodet_d2.export.score import score

    data = data_of(args)
    if data is None:
        raise ValueError(f"{args.source} has no data set: give --data")
    options = Options(
        num_threads=args.threads,
        metadata=args.metadata,
        max_pixels=args.max_pixels,
        nms=args.nms,
        device=args.device,
        tiles=tiles_of(args),
    )
    detector = open_detector(args.source, args.weights, args.overrides, options)
    results = score(detector, *data, output_dir=args.output)
    print_csv_format(results)
    if args.output is not None:
        (args.output / "evaluation.json").write_text(json.dumps(results, indent=1))
    return results


def _of_config(args: argparse.Namespace) -> dict[str, Any]:
    from nanodet_d2.engine import launch, main

    args.num_machines, args.machine_rank, args.dist_url = 1, 0, "auto"
    args.config_file, args.resume, args.eval_only = args.source, False, True
    data = data_of(args) or (None, None)
    named = args.source if args.source in zoo.names() else None
    given = {
        "train.init_checkpoint": weights_of(args.weights or named),
        "data.val.json": data[0],
        "data.val.images": data[1],
        "train.output_dir": args.output,
        "train.device": args.device,
        "model.nms": args.nms,
        "dataloader.test.mapper.max_pixels": args.max_pixels,
    }
    args.opts = [f"{key}={value}" for key, value in given.items() if value is not None]
    args.opts += with_weights(args.overrides)
    return launch(main, args)
