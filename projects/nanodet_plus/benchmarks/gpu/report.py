"""Rows of the GPU check: kept as json, shown as Markdown, both whole after every row."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import common

PASSED, FAILED, MEASURED, LEFT_OUT = "passed", "failed", "measured", "left out"
OUTCOMES = (PASSED, FAILED, MEASURED, LEFT_OUT)


@dataclasses.dataclass(frozen=True)
class Row:
    """What one check found.

    Args:
        name: what was checked, or measured.
        outcome: one of ``OUTCOMES``.
        finding: in words.
        cell: of a measurement, its place in a table of its own: the table's title, its line and its
            column.
        figures: the same as numbers.
        seconds: that it took.
    """

    name: str
    outcome: str
    finding: str
    cell: tuple[str, str, str] | None = None
    figures: dict[str, float] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        assert self.outcome in OUTCOMES, self.outcome

    def after(self, seconds: float) -> Row:
        """The same with the time that it took."""
        return dataclasses.replace(self, seconds=seconds)


def judged(name: str, good: bool, finding: str, **figures: float) -> Row:
    """A check's row."""
    return Row(name, PASSED if good else FAILED, finding, figures=figures)


class Report:
    """The rows in a json file, which processes write in turn; the Markdown lies beside it.

    Args:
        path: of the json, which is read if it is there.
    """

    def __init__(self, path: Path):
        self.path = path
        self.facts: dict[str, Any] = {}
        self.rows: list[Row] = []
        if path.is_file():
            self.read()

    def read(self) -> None:
        """Take over what another process has added."""
        content = json.loads(self.path.read_text())
        self.rows = [Row(**{**x, "cell": _tuple(x["cell"])}) for x in content.pop("rows")]
        self.facts = content

    def add(self, row: Row) -> None:
        self.rows.append(row)
        self.write()

    def write(self) -> None:
        """Write both files; nobody ever sees half of one."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        rows = [dataclasses.asdict(row) for row in self.rows]
        _replace(self.path, json.dumps({**self.facts, "rows": rows}, indent=1) + "\n")
        _replace(self.path.with_suffix(".md"), self.markdown())

    def count(self, outcome: str) -> int:
        return sum(row.outcome == outcome for row in self.rows)

    def markdown(self) -> str:
        """The facts, the checks, and a table for each title of the measurements."""
        facts = [f"{name}: {value}" for name, value in self.facts.items()]
        checks = [
            (row.name, row.outcome, row.finding, f"{row.seconds:.1f}")
            for row in self.rows
            if row.cell is None
        ]
        parts = ["\n".join(f"- {fact}" for fact in facts)]
        parts.append(common.table(_safe(checks), ["check", "outcome", "finding", "s"]))
        titles = dict.fromkeys(row.cell[0] for row in self.rows if row.cell)
        parts += [pivot(title, self.rows) for title in titles]
        return "\n\n".join(parts) + "\n"


def pivot(title: str, rows: Iterable[Row]) -> str:
    """The table of a title: lines and columns in the order in which they came."""
    cells = {row.cell[1:]: row.finding for row in rows if row.cell and row.cell[0] == title}
    lines = dict.fromkeys(line for line, _ in cells)
    columns = list(dict.fromkeys(column for _, column in cells))
    body = [[line, *(cells.get((line, column), "–") for column in columns)] for line in lines]
    return common.table(_safe(body), [title, *columns])


def _safe(rows: Iterable[Sequence[str]]) -> list[list[str]]:
    """Texts that may stand in a Markdown table."""
    return [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]


def _tuple(cell: Any) -> Any:
    return None if cell is None else tuple(cell)


def _replace(path: Path, text: str) -> None:
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)
