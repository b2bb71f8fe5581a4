"""What a verb of the command is."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import pkgutil
from typing import Any, Protocol, cast

from . import verbs


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a verb found.

    Attributes:
        text: for the terminal; nothing if empty.
        facts: the same for a machine, printed with ``--json``.
        code: the exit code, 0, or 1 if something is wrong.
    """

    text: str = ""
    facts: Any = None
    code: int = 0


class Verb(Protocol):
    """A module in ``verbs/``. It imports nothing heavy before it runs.

    Attributes:
        HELP: what it does, in a line.
        EXAMPLES: two commands; a test runs them.
        TAKES_OVERRIDES: whether ``key=value`` of a config may follow.
    """

    HELP: str
    EXAMPLES: tuple[str, str]
    TAKES_OVERRIDES: bool

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace) -> Outcome:
        """Do it; ``args.overrides`` is the list of ``key=value``.

        Raises:
            ValueError, FileNotFoundError: if it was asked wrongly.
        """
        ...


def load_verbs() -> dict[str, Verb]:
    """All verbs by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(verbs.__path__))
    return {name: cast(Verb, importlib.import_module(f"{verbs.__name__}.{name}")) for name in names}
