"""``nanodet-d2 doctor``."""

from __future__ import annotations

import argparse

from ..sources import CONFIG_HELP
from ..verb import Outcome

HELP = "check a data set before a training"
EXAMPLES = (
    "nanodet-d2 doctor my/train.json --images my/train --val my/val.json --val-images my/val",
    "nanodet-d2 doctor --config nanodet-plus-m-416 data.train.json=my/train.json "
    "data.train.images=my/train data.val.json=my/val.json data.val.images=my/val",
)
TAKES_OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("dataset", nargs="?", metavar="DATASET", help="a folder with all splits, whose layout "
        "is recognised, or YOLO's data.yaml; with --images one split: a COCO json file, a folder "
        "of Pascal VOC's XML files or of YOLO's text files (with --classes); or a name that is "
        "registered in detectron2")  # fmt: skip
    add("--images", metavar="FOLDER", help="of the images")
    add("--val", metavar="DATASET", help="that of the evaluation, checked against the first")
    add("--val-images", metavar="FOLDER", help="of its images; as --images if not given")
    add("--classes", help="names in the model's order, as in cat,dog")
    add("--imports", metavar="MODULES", help="whose code registers DATASET, as in my_package.sets")
    add("--config", dest="config_file", metavar="CONFIG", help=f"{CONFIG_HELP}. What is checked is "
        "what a training with these overrides would use")  # fmt: skip
    add("--input-size", type=numbers, metavar="H,W", help="of the network; 416,416 or the config's")
    add(
        "--strides",
        type=numbers,
        default=[8, 16, 32, 64],
        help="of its levels (default: 8,16,32,64)",
    )
    add("--plan", action="store_true", help="propose input size, tile size and overlap for the "
        "boxes of the folder DATASET, and what each costs")  # fmt: skip
    add("--no-images", action="store_true", help="do not open the images")
    add("--allow-outside", action="store_true", help="as data.allow_outside")
    add("--max-pixels", type=int, help="of an image, as the mapper's")
    add("--workers", type=int, help="threads that read images; one per core")
    add("--output", default="output/doctor", help="folder (default: %(default)s)")


def numbers(text: str) -> list[int]:
    words = text.split(",")
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: whole numbers above 0, as in 8,16")
    return [int(word) for word in words]


def run(args: argparse.Namespace) -> Outcome:
    _check(args)
    if args.plan:
        from nanodet_d2.doctor.plan import plan

        return Outcome(*plan(args.dataset, args.overrides, input_size=args.input_size))
    from nanodet_d2.doctor.command import check

    text, facts = check(args)
    return Outcome(text, facts, code=facts["exit_code"])


def _check(args: argparse.Namespace) -> None:
    if bool(args.config_file) == bool(args.dataset):
        raise ValueError("give one DATASET, or --config")
    given = (args.images, args.val, args.val_images, args.classes, args.imports)
    if args.plan and (args.config_file or any(given)):
        raise ValueError("--plan takes a folder with all splits, and overrides data.…=…")
    if args.config_file and any(given):
        raise ValueError("with --config, data is given by overrides: data.train.json=…")
    if args.config_file and args.max_pixels is not None:
        raise ValueError("with --config: dataloader.train.mapper.max_pixels=…")
    if args.overrides and not args.config_file and any((args.images, args.val)):
        raise ValueError(f"{args.overrides[0]} needs --config, or a folder with all splits")
    if args.input_size and len(args.input_size) != 2:
        raise ValueError("--input-size: needed: height,width")
