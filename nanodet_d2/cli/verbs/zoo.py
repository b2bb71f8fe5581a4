"""``nanodet-d2 zoo``."""

from __future__ import annotations

import argparse

from nanodet_d2 import zoo

from ..verb import Outcome

HELP = "list the models that are known by name, or fetch the weights of one"
EXAMPLES = ("nanodet-d2 zoo", "nanodet-d2 zoo nanodet-plus-m-416 --fetch")
TAKES_OVERRIDES = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", choices=zoo.names(), help="tell all of one model")
    parser.add_argument("--fetch", action="store_true", help="fetch its weights, and tell the path")


def run(args: argparse.Namespace) -> Outcome:
    if args.name is None:
        if args.fetch:
            raise ValueError("--fetch needs a name")
        return Outcome(zoo.table(), [zoo.entry(name).facts() for name in zoo.names()])
    facts = zoo.entry(args.name).facts()
    if args.fetch:
        facts["weights"] = str(zoo.weights(args.name))
    return Outcome("\n".join(f"{key:16} {value}" for key, value in facts.items()), facts)
