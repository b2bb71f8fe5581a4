"""The command's parsers: help, one-line errors, overrides anywhere, shell completion."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from nanodet_d2 import __version__

from .verb import Verb

PROG = "nanodet-d2"
SHELLS = ("bash", "zsh")
# ``model.neck.out_channels=128``, or ``+key=value`` for a new one
_OVERRIDE = re.compile(r"\+?[A-Za-z_]\w*(\.\w+)*=")


class Parser(argparse.ArgumentParser):
    """argparse's, whose errors take one line."""

    def __init__(self, **kwargs: Any):
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"{self.prog}: {message} (see {self.prog} --help)\n")
        raise SystemExit(2)


class _Completion(argparse.Action):
    """Print the completion script of a shell, by shtab."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        try:
            import shtab
        except ImportError:
            parser.error("shell completion needs shtab: pip install shtab")
        sys.stdout.write(shtab.complete(parser, shell=values) + "\n")
        parser.exit()


def build_parser(verbs: Mapping[str, Verb]) -> tuple[Parser, dict[str, Parser]]:
    """The parser of the whole command, and those of its verbs."""
    root = Parser(
        prog=PROG,
        description="NanoDet-Plus on detectron2: train, evaluate, export and run small detectors.",
        epilog=f"{PROG} VERB --help tells all about a verb. Exit codes: 0 done, 1 something is "
        "wrong or failed, 2 asked wrongly.",
    )
    root.add_argument("--version", action="version", version=f"{PROG} {__version__}")
    root.add_argument(
        "--completion",
        action=_Completion,
        choices=SHELLS,
        help="print the script that completes this command in a shell",
    )
    chosen = root.add_subparsers(metavar="VERB", dest="verb", required=True)
    parsers = {}
    for name, verb in verbs.items():
        examples = "\n".join(f"  {x}" for x in verb.EXAMPLES)
        parser = chosen.add_parser(
            name,
            help=verb.HELP,
            description=f"{verb.HELP[0].upper()}{verb.HELP[1:]}.",
            epilog=f"examples:\n{examples}",
        )
        verb.add_arguments(parser)
        if verb.TAKES_OVERRIDES:
            # They are taken out before; this is for the help alone.
            parser.usage = parser.format_usage().removeprefix("usage: ").rstrip() + " [key=value …]"
        parser.add_argument("--json", action="store_true", help="print the result as json")
        parser.add_argument("--traceback", action="store_true", help="show where an error is from")
        parsers[name] = parser
    return root, parsers


def split_overrides(
    parser: argparse.ArgumentParser, arguments: Sequence[str], *, allowed: bool
) -> tuple[list[str], list[str]]:
    """Take the ``key=value`` out of a verb's arguments, wherever they stand.

    What follows an option that takes one value is that value. A file whose name looks like an
    override is given as ``./name``.

    Returns:
        the other arguments, and the overrides.
    """
    if not allowed:
        return list(arguments), []
    options = parser._option_string_actions
    rest: list[str] = []
    overrides: list[str] = []
    values = 0  # that the last option still takes
    for argument in arguments:
        if values == 0 and _OVERRIDE.match(argument):
            overrides.append(argument)
            continue
        rest.append(argument)
        if argument in options:
            action = options[argument]
            values = action.nargs if isinstance(action.nargs, int) else int(action.nargs is None)
        else:
            values = max(0, values - 1)
    return rest, overrides
