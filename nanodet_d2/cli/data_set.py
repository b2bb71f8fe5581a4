"""``--data``, the pictures and boxes that a verb measures with: a COCO file, or a folder."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

WRITTEN = Path("output/data")  # a folder's split as a COCO file


def add_data(parser: argparse.ArgumentParser, *, absent: str = "") -> None:
    """The options that :func:`data_of` reads; ``absent`` says what holds without them."""
    add = parser.add_argument
    add("--data", type=Path, metavar="FOLDER|JSON", help="a data set's folder, of which the "
        f"validation pictures are taken, or annotations in COCO format{absent}")  # fmt: skip
    add("--images", type=Path, metavar="FOLDER", help="of the pictures of a json")
    add("--split", help="of the folder, e.g. test (default: val)")


def data_of(args: argparse.Namespace) -> tuple[Path, Path] | None:
    """The COCO file and the folder of its pictures; None if none are given.

    A folder's split is written as a COCO file below ``WRITTEN``. It is the one that a training on
    the folder is evaluated with.

    Raises:
        ValueError: for options that do not go together, or a folder that is no data set.
    """
    if args.data is None:
        if args.images is not None or args.split is not None:
            raise ValueError("--images and --split are of --data, which is not given")
        return None
    if args.data.suffix.lower() == ".json":
        if args.images is None:
            raise ValueError(f"--data {args.data} needs --images, the folder of its pictures")
        if args.split is not None:
            raise ValueError(f"--split is for a folder; --data {args.data} is one split")
        return args.data, args.images
    if args.images is not None:
        raise ValueError(f"--images is for a json; --data {args.data} is a folder")
    return _of_folder(args.data, args.split)


def _of_folder(folder: Path, split: str | None) -> tuple[Path, Path]:
    from nanodet_d2.data.splits import split_content
    from nanodet_d2.doctor.folder import data_of_folder

    wanted = [] if split is None else [f"data.val.split={split}"]
    content, _, images = split_content(data_of_folder(str(folder), wanted), "val")
    WRITTEN.mkdir(parents=True, exist_ok=True)
    home = folder.resolve().parent if folder.is_file() else folder.resolve()  # of data.yaml
    path = WRITTEN / f"{home.name}_{split or 'val'}.json"
    kept = {key: content[key] for key in ("images", "annotations", "categories")}
    path.write_text(json.dumps(kept), encoding="utf-8")
    return path, Path(images)
