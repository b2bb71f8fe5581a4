"""``nanodet-d2 info``."""

from __future__ import annotations

import argparse

from ..sources import SOURCE, SOURCE_HELP, Options, is_exported, open_detector
from ..verb import Outcome

HELP = "tell what a config, a checkpoint or an exported file is"
EXAMPLES = ("nanodet-d2 info model_final.pth", "nanodet-d2 info model.onnx --json")
TAKES_OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar=SOURCE, help=SOURCE_HELP)


def run(args: argparse.Namespace) -> Outcome:
    if is_exported(args.source):
        facts = _of_file(args.source, args.overrides)
    else:
        from nanodet_d2.export.loading import describe_source

        facts = describe_source(args.source, overrides=args.overrides)
    return Outcome("\n".join(f"{key:24} {_text(value)}" for key, value in facts.items()), facts)


def _of_file(path: str, overrides: list[str]) -> dict:
    import dataclasses

    detector = open_detector(path, None, overrides, Options())
    return {"file": path, "backend": detector.backend, **dataclasses.asdict(detector.metadata)}


def _text(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    return str(value)
