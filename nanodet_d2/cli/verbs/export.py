"""``nanodet-d2 export``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..sources import SOURCE, is_exported, weights_of
from ..verb import Outcome

HELP = "write files for other engines, each run by its engine and compared with PyTorch"
EXAMPLES = (
    "nanodet-d2 export model_final.pth --format onnx",
    "nanodet-d2 export nanodet-plus-m-416 --format openvino ncnn --fp16 --output output/export",
)
TAKES_OVERRIDES = True
KINDS = ("raw", "decoded", "end2end")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", metavar=SOURCE, help="a checkpoint that a training wrote, a config with "
        "--weights, or a name of the zoo")  # fmt: skip
    add("--weights", help="a config's checkpoint, path or URL; its averaged weights are preferred")
    add("--format", nargs="+", help="formats to write; without any: what there is")
    add("--output", type=Path, default=Path("output/export"), help="folder (default: %(default)s)")
    add("--kind", choices=KINDS, default="raw", help="what the graph contains (default: raw)")
    add("--end2end", dest="kind", action="store_const", const="end2end", help="--kind end2end")
    add("--input-size", type=int, nargs=2, metavar=("H", "W"), help="that of the config if absent")
    add("--dynamic", action="store_true", help="batch, height and width are free")
    add("--fp16", action="store_true", help="half-precision weights")
    add("--int8", action="store_true", help="quantise; needs --calibration")
    add("--calibration", type=Path, metavar="FOLDER", help="pictures to calibrate --int8 with")
    add("--calibration-count", type=int, default=300, metavar="N",
        help="how many of them at most, spread over the folder (default: %(default)s)")  # fmt: skip
    add("--explain", action="store_true", help="of --int8: what quantising each convolution costs, "
        "also as json beside the file")  # fmt: skip
    add("--eval-json", type=Path, help="COCO file to score --int8 with, before and after")
    add("--eval-images", type=Path, metavar="FOLDER", help="the pictures of --eval-json")
    add("--no-verify", dest="verify", action="store_false", help="do not compare with PyTorch")
    add("--isolated", action="store_true", help="run converters whose packages do not go with the "
        "project's in environments of their own, made once (litert)")  # fmt: skip
    add("--images", type=Path, nargs="+", default=[], help="pictures, or folders, to verify with")
    add("--kit", action="store_true", help="write beside each file what ports of its pre- and "
        "post-processing are checked against")  # fmt: skip


def run(args: argparse.Namespace) -> Outcome:
    from nanodet_d2.export.formats import table
    from nanodet_d2.export.job import Job, check_job
    from nanodet_d2.export.loading import load_model
    from nanodet_d2.export.writer import export, summary

    if not args.format:
        raise ValueError(f"--format is missing; there are:\n{table()}")
    if is_exported(args.source):
        raise ValueError(f"{args.source} is an exported file; export its checkpoint")
    job = Job(
        formats=tuple(dict.fromkeys(args.format)),
        output=args.output,
        kind=args.kind,
        dynamic=args.dynamic,
        fp16=args.fp16,
        int8=args.int8,
        calibration=args.calibration,
        calibration_count=args.calibration_count,
        eval_json=args.eval_json,
        eval_images=args.eval_images,
        verify=args.verify,
        images=tuple(args.images),
        isolated=args.isolated,
        kit=args.kit,
        explain=args.explain,
    )
    check_job(job)  # before weights are fetched
    loaded = load_model(
        args.source,
        weights_of(args.weights),
        input_size=args.input_size,
        overrides=args.overrides,
    )
    written = export(loaded, job)
    return Outcome(summary(written), [x.facts() for x in written])
