"""``nanodet-d2 env``."""

from __future__ import annotations

import argparse

from ..verb import Outcome

HELP = "tell versions, devices and optional packages, and check that a small model works"
EXAMPLES = ("nanodet-d2 env", "nanodet-d2 env --json")
TAKES_OVERRIDES = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are none."""


def run(args: argparse.Namespace) -> Outcome:
    from nanodet_d2.env import report

    facts, passed = report()
    text = "\n".join(f"{name:32} {value}" for name, value in facts.items())
    return Outcome(text, facts, code=int(not passed))
