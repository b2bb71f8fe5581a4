"""``nanodet-d2 predict``: on an exported file it needs neither torch nor detectron2."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..sources import (
    NMS,
    NMS_HELP,
    SOURCE,
    SOURCE_HELP,
    Options,
    add_tiles,
    open_detector,
    tiles_of,
)
from ..verb import Outcome

HELP = "detect in pictures, folders, videos or cameras; draw, and write what was found"
EXAMPLES = (
    "nanodet-d2 predict nanodet-plus-m-416 street.jpg",
    "nanodet-d2 predict model.onnx photos clip.mp4 --threshold 0.5 --output output/found",
)
TAKES_OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", metavar=SOURCE, help=SOURCE_HELP)
    add("inputs", metavar="INPUT", nargs="+", help="picture, folder, video, or camera:0")
    add("--weights", help="a config's checkpoint, path or URL")
    add("--output", type=Path, default=Path("output/detections"),
        help="folder for pictures, videos, detections.jsonl and, in COCO format, detections.json "
        "(default: %(default)s)")  # fmt: skip
    add("--threshold", type=float, default=0.35, help="lowest score (default: %(default)s)")
    add("--metadata", type=Path, help="json in place of an exported file's own metadata")
    add("--input-size", type=int, nargs=2, metavar=("H", "W"), help="of a config or dynamic file")
    add("--nms", choices=NMS, help=NMS_HELP)
    add("--threads", type=int, help="of the engine")
    add("--device", help="where to compute, e.g. cpu or cuda")
    add("--max-pixels", type=int, help="larger pictures are refused")
    add("--max-frames", type=int, help="of each input, then stop")
    add_tiles(parser)


def run(args: argparse.Namespace) -> Outcome:
    from nanodet_d2.runtime.images import MAX_PIXELS, check_max_pixels
    from nanodet_d2.runtime.run import detect_in
    from nanodet_d2.runtime.sources import open_inputs

    limit = check_max_pixels(args.max_pixels or MAX_PIXELS)
    sources = open_inputs(args.inputs, args.output, max_pixels=limit)
    options = Options(
        num_threads=args.threads,
        score_thresh=args.threshold,
        metadata=args.metadata,
        input_size=tuple(args.input_size) if args.input_size else None,
        max_pixels=limit,
        nms=args.nms,
        device=args.device,
        tiles=tiles_of(args),
    )
    detector = open_detector(args.source, args.weights, args.overrides, options)
    done = detect_in(sources, detector, args.output, max_frames=args.max_frames)
    facts = {
        "pictures": done.pictures,
        "detections": done.detections,
        "output": str(args.output),
        "problems": done.problems,
    }
    return Outcome(facts=facts, code=int(bool(done.problems)))
