"""``nanodet-d2 benchmark``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..data_set import add_data, data_of
from ..sources import SOURCE
from ..verb import Outcome

HELP = "compare exported files and models: size, latency, throughput, AP"
EXAMPLES = (
    "nanodet-d2 benchmark output/export",
    "nanodet-d2 benchmark model.onnx model_final.pth --image street.jpg --data my_data",
)
TAKES_OVERRIDES = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("sources", metavar=SOURCE, nargs="+", help="folders of exported files, exported files, "
        "checkpoints that a training wrote, or names of the zoo")  # fmt: skip
    add("--other", nargs=2, action="append", default=[], metavar=("MODEL", "METADATA"),
        help="a model of other origin, and a json that describes it")  # fmt: skip
    add("--pytorch", nargs=2, action="append", default=[], metavar=("CONFIG", "WEIGHTS"),
        help="a config with its checkpoint, run by PyTorch")  # fmt: skip
    add("--image", type=Path, help="picture to measure with (default: a drawn scene)")
    add("--threads", type=int, nargs="+", default=[1, 2], help="numbers of threads (default: 1 2)")
    add("--rounds", type=int, default=10, help="of five counted calls each (default: 10)")
    add_data(parser, absent="; without, no AP is measured")
    add("--output", type=Path, default=Path("output/benchmark"), help="folder to write "
        "(default: %(default)s)")  # fmt: skip


def run(args: argparse.Namespace) -> Outcome:
    from nanodet_d2.benchmark.command import benchmark
    from nanodet_d2.benchmark.models import Model, find_models, foreign_model
    from nanodet_d2.runtime.images import load_image

    models: list[Model] = []
    for source in args.sources:
        if Path(source).is_dir():
            models += find_models(Path(source))
        else:
            models.append(Model(Path(source).name, Path(source)))
    models += [foreign_model(Path(path), Path(json_file)) for path, json_file in args.other]
    models += [Model(Path(path).name, Path(path), weights=x) for path, x in args.pytorch]
    text, facts = benchmark(
        models,
        args.output,
        image=None if args.image is None else load_image(args.image),
        threads=args.threads,
        rounds=args.rounds,
        data=data_of(args),
    )
    return Outcome(text, facts)
