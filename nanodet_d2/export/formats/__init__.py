"""The formats that are written: a module for each. Nothing else lists them."""

from __future__ import annotations

import functools
import importlib
import pkgutil

from .base import Format

__all__ = ["Format", "find_format", "formats", "table"]


@functools.cache
def formats() -> dict[str, Format]:
    """All formats by name. The packages that write them are not imported."""
    found: dict[str, Format] = {}
    for name in sorted(x.name for x in pkgutil.iter_modules(__path__)):
        module = importlib.import_module(f"{__name__}.{name}")
        for kind in vars(module).values():
            if not isinstance(kind, type) or kind.__module__ != module.__name__:
                continue  # what a module imports is another's
            if issubclass(kind, Format) and kind is not Format:
                found[kind.backend.format] = kind()
    return found


def find_format(name: str) -> Format:
    """Raises ``ValueError`` for a name that there is not; the message lists the known ones."""
    if name not in formats():
        raise ValueError(f"unknown format {name}; known: {', '.join(formats())}")
    return formats()[name]


def table() -> str:
    """The formats, what each can do, and what it needs, for a terminal."""
    rows = [("format", "files", "beyond raw float32", "written by")]
    rows += [
        (name, f"*{x.backend.suffix}", ", ".join(x.options), _writers(x))
        for name, x in formats().items()
    ]
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths)).rstrip() for row in rows)


def _writers(format: Format) -> str:
    isolated = " (with --isolated)" if format.environment else ""
    return (", ".join(format.packages) or "torch") + isolated
