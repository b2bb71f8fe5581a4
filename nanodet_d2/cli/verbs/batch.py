"""``nanodet-d2 batch``: on an exported file it needs neither torch nor detectron2."""

from __future__ import annotations

import argparse
import functools
import os
from pathlib import Path

from ..sources import NMS, NMS_HELP, SOURCE, SOURCE_HELP, Options, open_detector
from ..verb import Outcome

HELP = "detect in any number of pictures by many processes or a Ray cluster, losing none"
EXAMPLES = (
    "nanodet-d2 batch nanodet-plus-m-416 photos --output output/photos --format coco",
    "nanodet-d2 batch model.onnx 'photos/*.png' street.jpg --output output/all --workers 2 "
    "--review 200",
)
TAKES_OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", metavar=SOURCE, help=SOURCE_HELP)
    add("inputs", metavar="INPUT", nargs="+", help="folder, pattern, picture, tar file "
        "(WebDataset), .txt with a path or address in each line, or the address of any of these "
        "that fsspec knows (s3://…)")  # fmt: skip
    add("--output", type=Path, required=True, help="folder; what is there of the same run already "
        "is kept, so a run that was cut off goes on")  # fmt: skip
    add("--format", nargs="+", choices=("jsonl", "coco", "parquet"), default=["jsonl"],
        help="besides shards/*.jsonl, which there always are "
        "(parquet: nanodet-d2[parquet])")  # fmt: skip
    add("--engine", choices=("local", "ray"), default="local", help="processes of this machine, or "
        "a Ray cluster (nanodet-d2[ray]), whose machines see model and pictures under the same "
        "names (default: %(default)s)")  # fmt: skip
    add("--address", help="of the Ray cluster (default: $RAY_ADDRESS, else this machine alone)")
    add("--workers", type=int, help="processes at a time (default: what the CPUs allow)")
    add("--threads", type=int, default=1, help="of each process (default: %(default)s)")
    add("--review", type=int, default=0, metavar="N", help="copy the N pictures that the model is "
        "least sure of into review/, as COCO to be labelled, with drawn previews")  # fmt: skip
    add("--shard-size", type=int, default=128, help="pictures of a shard (default: %(default)s)")
    add("--weights", help="a config's checkpoint, path or URL")
    add("--threshold", type=float, help="lowest score (default: the model's)")
    add("--metadata", type=Path, help="json in place of an exported file's own metadata")
    add("--input-size", type=int, nargs=2, metavar=("H", "W"), help="of a config or dynamic file")
    add("--nms", choices=NMS, help=NMS_HELP)
    add("--device", help="where to compute, e.g. cpu or cuda")
    add("--max-pixels", type=int, help="larger pictures are unreadable")


def run(args: argparse.Namespace) -> Outcome:
    from nanodet_d2.batch import Wish, Work, detect_all
    from nanodet_d2.runtime.images import MAX_PIXELS, check_max_pixels

    options = Options(
        num_threads=args.threads,
        score_thresh=args.threshold,
        metadata=args.metadata,
        input_size=tuple(args.input_size) if args.input_size else None,
        max_pixels=check_max_pixels(MAX_PIXELS if args.max_pixels is None else args.max_pixels),
        nms=args.nms,
        device=args.device,
    )
    work = Work(
        functools.partial(open_detector, args.source, args.weights, args.overrides, options),
        threads=args.threads,
        folder=os.getcwd(),
        device=args.device,
    )
    wish = Wish(
        inputs=args.inputs,
        output=args.output,
        formats=args.format,
        engine=args.engine,
        workers=args.workers,
        address=args.address,
        shard_size=args.shard_size,
        review=args.review,
    )
    facts = detect_all(work, wish)
    text = (
        f"{facts['detections']} detections in {facts['pictures']} pictures, of which "
        f"{facts['unreadable']} cannot be read (their rows say why); in {', '.join(facts['files'])}"
    )
    if "review" in facts:
        text += f"\n{facts['to_label']} pictures to be labelled next: {facts['review']}"
    return Outcome(text, facts)
