"""Lines and zones that objects are counted at, as a user names them."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Point = tuple[float, float]  # x, y, pixels of the picture
_SECTIONS = ("lines", "zones")


@dataclasses.dataclass(frozen=True)
class Line:
    """From one point to another; "in" is from its right-hand side to its left-hand side, as seen by
    who walks along it. Of a line that points to the right in the picture: from below to above."""

    name: str
    start: Point
    end: Point

    def __post_init__(self) -> None:
        if self.start == self.end:
            raise ValueError(f"line {self.name} has no length: {self.start} to {self.end}")


@dataclasses.dataclass(frozen=True)
class Zone:
    """A polygon; "in" is into it."""

    name: str
    corners: tuple[Point, ...]

    def __post_init__(self) -> None:
        if len(self.corners) < 3:
            raise ValueError(
                f"zone {self.name} has {len(self.corners)} corners; allowed: 3 or more"
            )


@dataclasses.dataclass(frozen=True)
class Areas:
    """All that is counted at; each name is there once."""

    lines: tuple[Line, ...] = ()
    zones: tuple[Zone, ...] = ()

    def __post_init__(self) -> None:
        names = [*(x.name for x in self.lines), *(x.name for x in self.zones)]
        twice = sorted({x for x in names if names.count(x) > 1})
        if twice:
            raise ValueError(f"lines and zones of the same name: {', '.join(twice)}")

    def __bool__(self) -> bool:
        return bool(self.lines or self.zones)


def parse_line(text: str) -> Line:
    """Of "name:x1,y1,x2,y2".

    Raises:
        ValueError: for another form.
    """
    name, points = _parse(text, "--line name:x1,y1,x2,y2")
    if len(points) != 2:
        raise ValueError(f"--line {text} has {len(points)} points; allowed: 2")
    return Line(name, *points)


def parse_zone(text: str) -> Zone:
    """Of "name:x1,y1,x2,y2,x3,y3,…".

    Raises:
        ValueError: for another form, or fewer than three corners.
    """
    return Zone(*_parse(text, "--zone name:x1,y1,x2,y2,x3,y3"))


def _parse(text: str, form: str) -> tuple[str, tuple[Point, ...]]:
    name, colon, rest = text.partition(":")
    try:
        numbers = [float(x) for x in rest.split(",")]
    except ValueError:
        numbers = []
    if not name or not colon or not numbers or len(numbers) % 2:
        raise ValueError(f"{text!r} is no line or zone; allowed: {form}")
    return name, _points(zip(numbers[0::2], numbers[1::2]), name)


def _points(pairs: Iterable[Any], name: str) -> tuple[Point, ...]:
    try:
        points = tuple((float(x), float(y)) for x, y in pairs)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: allowed are points, [x, y] each") from None
    if not all(math.isfinite(v) for point in points for v in point):
        raise ValueError(f"{name} has numbers that are not finite")
    return points


def read_areas(path: Path) -> Areas:
    """Of a json: ``{"lines": {"gate": [[x1, y1], [x2, y2]]}, "zones": {"yard": [[x, y], …]}}``.

    Raises:
        ValueError: for another content.
        FileNotFoundError: if there is no such file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not json: {error}") from error
    parts = [_section(content, name, path) for name in _SECTIONS]
    if set(content) - set(_SECTIONS):
        raise ValueError(f"{path} has {', '.join(content)}; allowed: {', '.join(_SECTIONS)}")
    for name, points in parts[0].items():
        if len(points) != 2:
            raise ValueError(f"{path}: line {name} has {len(points)} points; allowed: 2")
    return Areas(
        lines=tuple(Line(name, points[0], points[1]) for name, points in parts[0].items()),
        zones=tuple(Zone(name, tuple(points)) for name, points in parts[1].items()),
    )


def _section(content: Any, name: str, path: Path) -> dict[str, Sequence[Point]]:
    if not isinstance(content, Mapping) or not isinstance(content.get(name, {}), Mapping):
        raise ValueError(f"{path}: allowed are {' and '.join(_SECTIONS)}, each name to points")
    return {
        key: _points(points if isinstance(points, list) else [points], f"{path}: {key}")
        for key, points in content.get(name, {}).items()
    }


def all_areas(file: Path | None, lines: Sequence[str], zones: Sequence[str]) -> Areas:
    """What a json and a command's words name together.

    Raises:
        ValueError, FileNotFoundError: as above.
    """
    found = Areas() if file is None else read_areas(file)
    return Areas(
        lines=(*found.lines, *map(parse_line, lines)),
        zones=(*found.zones, *map(parse_zone, zones)),
    )
