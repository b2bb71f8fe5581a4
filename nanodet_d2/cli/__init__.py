"""The command ``nanodet-d2 VERB …``.

A verb is a module in ``verbs/``, which is found by itself. Exit codes: 0 it is done, 1 something
wrong was found or it failed, 2 it was asked wrongly.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import sys
import traceback
import warnings
from collections.abc import Sequence

from .parsing import Parser, build_parser, split_overrides
from .verb import Outcome, Verb, load_verbs

FAILED, ASKED_WRONGLY = 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    verbs = load_verbs()
    root, parsers = build_parser(verbs)
    try:
        if not arguments or arguments[0] not in verbs:
            root.parse_args(
                arguments or ["--help"]
            )  # ends here: help, version, completion or error
        verb, parser = verbs[arguments[0]], parsers[arguments[0]]
        rest, overrides = split_overrides(parser, arguments[1:], allowed=verb.TAKES_OVERRIDES)
        args = parser.parse_args(rest)
        args.overrides = overrides
    except SystemExit as ended:  # argparse's
        return int(ended.code or 0)
    return _run(verb, args, parser)


def _run(verb: Verb, args: argparse.Namespace, parser: Parser) -> int:
    _log_to_stderr()
    warnings.filterwarnings("ignore", "`torch.jit", FutureWarning)  # of libraries that are imported
    try:
        with contextlib.redirect_stdout(sys.stderr) if args.json else contextlib.nullcontext():
            outcome = verb.run(args)
    except KeyboardInterrupt:
        print("nanodet-d2: interrupted", file=sys.stderr)
        return FAILED
    except Exception as error:
        if args.traceback:
            traceback.print_exc()
        return _explain(parser, error)
    _show(outcome, as_json=args.json)
    return outcome.code


def _explain(parser: Parser, error: Exception) -> int:
    """One line that says why; returns the exit code."""
    text = " ".join(str(error).split())
    foreseen = isinstance(error, (ValueError, OSError, ImportError))
    kind = "" if foreseen and text else f"{type(error).__name__}: "
    hint = "" if foreseen else " (--traceback shows where)"
    print(f"{parser.prog}: {kind}{text}{hint}", file=sys.stderr)
    wrong = isinstance(error, (ValueError, FileNotFoundError)) and not _has_failed(error)
    return ASKED_WRONGLY if wrong else FAILED


def _has_failed(error: Exception) -> bool:
    """Whether an error that looks like a wrong request is a result: a file that is not verified."""
    return bool(getattr(error, "is_finding", False))


def _show(outcome: Outcome, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(outcome.facts, indent=1, ensure_ascii=False, default=str))
    elif outcome.text:
        print(outcome.text)


def _log_to_stderr() -> None:
    """What the package says goes to the terminal, unless somebody listens already."""
    logger = logging.getLogger("nanodet_d2")
    if not logger.handlers and not logging.getLogger().handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        # A training sets up detectron2's logging, which then says everything.
        handler.addFilter(lambda record: logger.handlers == [handler])
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
