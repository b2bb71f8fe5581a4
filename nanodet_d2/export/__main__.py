"""Export a model: ``python -m nanodet_d2.export --config-file … --checkpoint … --format onnx …``"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from detectron2.utils.logger import setup_logger

from .builder import Job
from .metadata import KINDS, SUFFIXES
from .writer import export

logger = logging.getLogger("nanodet_d2.export")


def main(argv: list[str] | None = None) -> int:
    """Returns 1, after one line that says why, if anything was refused or is wrong."""
    args = parse_args(argv)
    setup_logger(name="nanodet_d2")
    try:
        export(job_of(args))
    except (ValueError, FileNotFoundError) as error:
        logger.error("%s", error)
        return 1
    return 0


def job_of(args: argparse.Namespace) -> Job:
    return Job(
        config_file=args.config_file or args.checkpoint,
        checkpoint=args.checkpoint,
        formats=tuple(dict.fromkeys(args.format)),
        output=args.output,
        kind=args.kind,
        input_size=tuple(args.input_size) if args.input_size else None,
        dynamic=args.dynamic,
        fp16=args.fp16,
        int8=args.int8,
        calibration=args.calibration,
        eval_json=args.eval_json,
        eval_images=args.eval_images,
        verify=args.verify,
        images=tuple(args.images),
        overrides=tuple(args.opts),
    )


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m nanodet_d2.export", description=__doc__)
    add = parser.add_argument
    add("--config-file", help="config; a checkpoint that nanodet_d2 trained knows its own")
    add("--checkpoint", required=True, help="path or URL; its averaged weights are preferred")
    add("--format", nargs="+", required=True, help=", ".join(SUFFIXES))
    add("--output", type=Path, default=Path("output/export"), help="folder to write")
    add("--kind", choices=KINDS, default="raw", help="what the graph contains (default: raw)")
    add("--end2end", dest="kind", action="store_const", const="end2end", help="--kind end2end")
    add("--input-size", type=int, nargs=2, metavar=("H", "W"), help="that of the config if absent")
    add("--dynamic", action="store_true", help="batch, height and width are free")
    add("--fp16", action="store_true", help="half-precision weights (openvino, ncnn)")
    add("--int8", action="store_true", help="quantise (onnx, openvino); needs --calibration")
    add("--calibration", type=Path, metavar="FOLDER", help="pictures to calibrate --int8 with")
    add("--eval-json", type=Path, help="COCO file to score --int8 with, before and after")
    add("--eval-images", type=Path, metavar="FOLDER", help="the pictures of --eval-json")
    add("--no-verify", dest="verify", action="store_false", help="do not compare with PyTorch")
    add("--images", type=Path, nargs="+", default=[], help="pictures, or folders, to verify with")
    add("opts", nargs="*", metavar="KEY=VALUE", help="config overrides")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
