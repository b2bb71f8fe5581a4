"""Objects that cross lines and enter zones are counted once, in the right direction."""

from __future__ import annotations

import csv
import json

import pytest

from nanodet_d2.tracking.areas import Areas, Line, Zone, all_areas, parse_line, parse_zone
from nanodet_d2.tracking.counting import COLUMNS, CountFile, Counts

from .frames import NAMES, tracked

GATE = Line("gate", (100, 100), (200, 100))  # to the right in the picture
YARD = Zone("yard", ((100, 100), (200, 100), (200, 200), (100, 200)))


def count(path, *, areas=None, track: int = 1, label: int = 0, step: float = 0.1) -> dict:
    """Counts of a track along points; None where it is lost for a step."""
    counts = Counts(areas or Areas(lines=(GATE,)), NAMES, seconds=1.0)
    for i, point in enumerate(path):
        rows = [] if point is None else [(track, *point, label)]
        counts.see(tracked(*rows), i * step)
    return counts.facts()


@pytest.mark.parametrize(
    "path, counted",
    [
        ([(150, 130), (150, 70)], {"in": 1, "out": 0}),  # from below to above
        ([(150, 70), (150, 130)], {"in": 0, "out": 1}),
        ([(150, 130), (150, 70), (150, 130)], {"in": 1, "out": 1}),
        ([(150, 130), None, None, None, (150, 70)], {"in": 1, "out": 0}),  # lost on the way
        ([(150, 130), (150, 100.4), (150, 99.6), (150, 100.4), (150, 70)], {"in": 1, "out": 0}),
        ([(90, 130), (190, 70)], {"in": 1, "out": 0}),  # within the line's ends on the way
    ],
)
def test_who_crosses_a_line_counts(path, counted):
    assert count(path) == {"gate": {"circle": {**counted, "inside": 0}}}


@pytest.mark.parametrize(
    "path",
    [
        [(150, 130), (150, 110), (150, 130)],
        [(250, 130), (250, 70)],  # beyond its end
        [(150, 100), (150, 100)],  # on it
        [(150, 130)] + [None] * 15 + [(150, 70)],  # forgotten after a second
        [],
    ],
)
def test_who_does_not_cross_does_not_count(path):
    assert count(path) == {"gate": {}}


def test_ids_and_classes_are_apart():
    counts = Counts(Areas(lines=(GATE,)), NAMES, seconds=1.0)
    counts.see(tracked((1, 120, 130), (2, 150, 70, 1)), 0.0)
    counts.see(tracked((1, 120, 70), (3, 150, 130, 1)), 0.1)  # 2 is gone, 3 is another one
    assert counts.facts() == {"gate": {"circle": {"in": 1, "out": 0, "inside": 0}}}
    assert counts.texts() == {"gate": "gate: 1 in, 0 out"}


@pytest.mark.parametrize(
    "path, counted",
    [
        ([(50, 150), (150, 150)], (1, 0, 1)),
        ([(150, 150), (50, 150)], (1, 1, 0)),  # it appears within
        ([(50, 150), (150, 150), (250, 150), (150, 150)], (2, 1, 1)),
        ([(50, 150), (150, 150), (99.6, 150), (100.4, 150), (150, 150)], (1, 0, 1)),  # trembles
        ([(150, 150), *[None] * 15], (1, 0, 0)),  # lost within: neither in nor out
    ],
)
def test_who_enters_a_zone_counts(path, counted):
    facts = count(path, areas=Areas(zones=(YARD,)))
    assert facts == {"yard": {"circle": dict(zip(("in", "out", "inside"), counted))}}


def test_a_row_of_the_csv_for_each_interval(tmp_path):
    counts = Counts(Areas(lines=(GATE,), zones=(YARD,)), NAMES, seconds=9.0)
    file = CountFile(tmp_path / "sub" / "counts.csv", counts, 1.0)
    places = {0.0: (150, 70), 0.6: (150, 130), 1.7: (150, 70), 3.2: (150, 50)}
    for seconds, place in places.items():
        file.pass_time(seconds)
        counts.see(tracked((1, *place)), seconds)
    file.close()
    with open(tmp_path / "sub" / "counts.csv", encoding="utf-8", newline="") as opened:
        rows = list(csv.reader(opened))
    assert tuple(rows[0]) == COLUMNS
    assert rows[1:] == [
        ["1.0", "gate", "circle", "0", "1", "0"], ["1.0", "yard", "circle", "1", "0", "1"],
        ["2.0", "gate", "circle", "1", "1", "0"], ["2.0", "yard", "circle", "1", "1", "0"],
        ["3.0", "gate", "circle", "1", "1", "0"], ["3.0", "yard", "circle", "1", "1", "0"],
        ["3.2", "gate", "circle", "1", "1", "0"], ["3.2", "yard", "circle", "1", "1", "0"],
    ]  # fmt: skip


def test_lines_and_zones_in_words_and_in_a_file(tmp_path):
    assert parse_line("gate:100,100,200,100") == GATE
    assert parse_zone("yard:100,100,200,100,200,200,100,200") == YARD
    content = {"lines": {"gate": [[100, 100], [200, 100]]}, "zones": {"yard": YARD.corners}}
    path = tmp_path / "areas.json"
    path.write_text(json.dumps(content))
    assert all_areas(path, [], []) == Areas(lines=(GATE,), zones=(YARD,))
    assert all_areas(None, ["a:0,0,1,1"], []).lines == (Line("a", (0, 0), (1, 1)),)
    assert not all_areas(None, [], [])


@pytest.mark.parametrize(
    "lines, zones, message",
    [
        (["gate"], [], "'gate' is no line or zone; allowed: --line name:x1,y1,x2,y2"),
        (["gate:1,2,x,4"], [], "is no line or zone"),
        (["gate:1,2,3"], [], "is no line or zone"),
        (["gate:1,2,3,4,5,6"], [], "has 3 points; allowed: 2"),
        (["gate:1,2,1,2"], [], "line gate has no length"),
        (["gate:1,2,inf,4"], [], "numbers that are not finite"),
        ([], ["yard:1,2,3,4"], "zone yard has 2 corners; allowed: 3 or more"),
        (["a:0,0,1,1"], ["a:0,0,1,1,0,1"], "lines and zones of the same name: a"),
    ],
)
def test_words_that_are_refused(lines, zones, message):
    with pytest.raises(ValueError, match=message):
        all_areas(None, lines, zones)


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "is not json"),
        ("[]", "allowed are lines and zones"),
        ('{"lines": []}', "allowed are lines and zones"),
        ('{"line": {}}', "has line; allowed: lines, zones"),
        ('{"lines": {"a": [[1, 2]]}}', "line a has 1 points; allowed: 2"),
        ('{"lines": {"a": [[1, 2], [3]]}}', "a: allowed are points"),
        ('{"zones": {"a": 7}}', "a: allowed are points"),
    ],
)
def test_files_that_are_refused(tmp_path, text, message):
    path = tmp_path / "areas.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        all_areas(path, [], [])
