"""``nanodet-d2 data``."""

from __future__ import annotations

import argparse

from ..verb import Outcome

HELP = "look at a data set (info), or make COCO of any (convert)"
EXAMPLES = (
    "nanodet-d2 data info my/set data.val_share=0.3",
    "nanodet-d2 data convert my/set --to coco --output my/coco",
)
TAKES_OVERRIDES = True
ACTIONS = ("info", "convert")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("action", choices=ACTIONS, help="info: what was recognised, splits, classes, counts, and "
        "pictures with their boxes; convert: write COCO files and images")  # fmt: skip
    add("folder", metavar="FOLDER", help="of a data set with all its splits, or YOLO's data.yaml; "
        "overrides are those of a config's data section")  # fmt: skip
    add("--layout", help="info: coco, voc or yolo, where it could be several")
    add("--images", type=int, metavar="N", help="info: pictures of each split (default: 12)")
    add("--to", choices=("coco",), default="coco", help="convert: into what (default: coco)")
    add("--from", dest="form", metavar="FORMAT", help="convert: coco, voc, yolo, or a format of "
        "datumaro's, as cvat; found by itself if not given")  # fmt: skip
    add("--copy", action="store_true", help="convert: copy images; else they are hard links where "
        "the disk allows it, which take no room")  # fmt: skip
    add("--output", help="folder; of info's pictures (default: output/data), or a new one of "
        "convert's")  # fmt: skip


def run(args: argparse.Namespace) -> Outcome:
    foreign = {
        "info": {"--from": args.form, "--copy": args.copy},
        "convert": {"--layout": args.layout, "--images": args.images},
    }[args.action]
    for option, value in foreign.items():
        if value:
            raise ValueError(f"{option} is not for data {args.action}")
    return _info(args) if args.action == "info" else _convert(args)


def _info(args: argparse.Namespace) -> Outcome:
    from nanodet_d2.doctor.folder import data_of_folder
    from nanodet_d2.doctor.overview import as_text, overview

    data = data_of_folder(args.folder, args.overrides, layout=args.layout)
    pictures = 12 if args.images is None else args.images
    facts = overview(data, args.output or "output/data", pictures=pictures)
    return Outcome(as_text(facts), facts)


def _convert(args: argparse.Namespace) -> Outcome:
    from nanodet_d2.data.conversion import convert
    from nanodet_d2.doctor.folder import data_of_folder

    if not args.output:
        raise ValueError("data convert needs --output, a new folder")
    data = data_of_folder(args.folder, args.overrides)
    done = convert(data, args.output, form=args.form, copy=args.copy)
    problems = [{"what": what, "count": n, "first": first} for what, n, first in done.problems]
    facts = {"source": args.folder, "was": done.what, "output": args.output}
    lines = [f"{args.folder}: {done.what}"]
    lines += [
        f"  {split}: {n['images']} images, {n['annotations']} boxes"
        for split, n in done.splits.items()
    ]
    lines += [f"  {x['count']} {x['what']} (first: {x['first']})" for x in problems]
    lines.append(f"written to {args.output}; look at it: nanodet-d2 data info {args.output}")
    return Outcome("\n".join(lines), {**facts, "splits": done.splits, "problems": problems})
