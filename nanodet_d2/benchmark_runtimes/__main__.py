"""The command; see the package."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from detectron2.utils.logger import setup_logger

from nanodet_d2 import benchmark_runtimes
from nanodet_d2.predictor import load_image

from .measure import BLOCK, measure_all, score_all
from .models import Model, find_models, foreign_model, usable
from .report import machine, plot, table

logger = logging.getLogger("nanodet_d2.benchmark_runtimes")


def benchmark(args: argparse.Namespace, models: Sequence[Model]) -> int:
    """Measure, and write what there is even if it is interrupted; returns the exit status."""
    skipped: list[dict[str, str]] = []
    image = load_image(args.image) if args.image else drawn_image()
    kept = usable(models, image, skipped)
    if not kept:
        logger.error("None of the %d files can be used", len(models))
        return 1

    def save() -> None:
        result = {"machine": machine(), "image": list(image.shape[:2]), "rounds": args.rounds,
                  "models": [x.facts for x in kept], "skipped": skipped}  # fmt: skip
        args.output.mkdir(parents=True, exist_ok=True)
        (args.output / "runtimes.json").write_text(json.dumps(result, indent=1))

    try:
        measure_all(kept, image, args.threads, args.rounds)
        save()  # a runtime that crashes takes the process with it
        if args.json:
            score_all(kept, args.json, args.images, args.threads[-1])
    finally:
        save()
    text = table(kept)
    (args.output / "runtimes.md").write_text(f"{machine()}\n\n{text}\n")
    sys.stdout.write(f"{machine()}\n{text}\n")
    if args.json:
        plot(kept, args.output / "runtimes.png")
    logger.info("Table, json%s are in %s", " and plot" * bool(args.json), args.output)
    return 0


def drawn_image() -> np.ndarray:
    """Noise (480, 640, 3) uint8: as large as a usual picture, with hardly a detection."""
    return np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)


def main(argv: list[str] | None = None) -> int:
    """Returns 1, after one line that says why, if nothing can be measured."""
    args = parse_args(argv)
    setup_logger(name="nanodet_d2")
    try:
        models = find_models(args.folder)
        models += [foreign_model(Path(path), Path(json_file)) for path, json_file in args.other]
        models += [Model(Path(path).name, Path(path), weights=x) for path, x in args.pytorch]
        _refuse_equal_names(models)
        return benchmark(args, models)
    except (ValueError, FileNotFoundError) as error:
        logger.error("%s", error)
        return 1


def _refuse_equal_names(models: Sequence[Model]) -> None:
    names = [model.name for model in models]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"more than one model is called {', '.join(twice)}; rename one")


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m nanodet_d2.benchmark_runtimes", description=benchmark_runtimes.__doc__
    )
    add = parser.add_argument
    add("folder", type=Path, help="of exported files")
    add("--other", nargs=2, action="append", default=[], metavar=("MODEL", "METADATA"),
        help="a model of other origin, and a json that describes it")  # fmt: skip
    add("--pytorch", nargs=2, action="append", default=[], metavar=("CONFIG", "WEIGHTS"),
        help="a config with its checkpoint, run by PyTorch")  # fmt: skip
    add("--image", type=Path, help="picture to measure with (default: noise, 640 x 480)")
    add("--threads", type=int, nargs="+", default=[1, 2], help="numbers of threads (default: 1 2)")
    add("--rounds", type=int, default=10, help=f"of {BLOCK - 1} counted calls for each file")
    add("--json", type=Path, help="annotations in COCO format, for the AP")
    add("--images", type=Path, help="folder of the pictures of --json")
    add("--output", type=Path, default=Path("output/runtimes"), help="folder to write")
    args = parser.parse_args(argv)
    if (args.json is None) != (args.images is None):
        parser.error("--json and --images belong together")
    return args


if __name__ == "__main__":
    sys.exit(main())
