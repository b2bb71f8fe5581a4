"""What becomes of odd lines is what the page says, in the readers and in the doctor."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog

from nanodet_d2.data import split_name
from nanodet_d2.data.files import Problems
from nanodet_d2.data.readers.yolo import _parse
from nanodet_d2.data.splits import split_content
from nanodet_d2.doctor import examine_annotations
from tests.data.odd_lines import LAYOUTS, PAGE, page, write_data_set


def test_the_page_has_these_rows():
    assert PAGE.read_text(encoding="utf-8") == page()


@pytest.mark.parametrize(
    ("form", "number"), [(form, i) for form, cases in LAYOUTS.items() for i in range(len(cases))]
)
def test_a_row_of_the_page(form, number, tmp_path, caplog):
    case = LAYOUTS[form][number]
    data = write_data_set(form, case, tmp_path)
    with caplog.at_level(logging.WARNING, logger="nanodet_d2"):
        records = DatasetCatalog.get(split_name(data, "train"))
    records = [x for x in records if x["file_name"].endswith("a.png")]
    assert len(records) == case.images
    found = [x for record in records for x in record["annotations"]]
    assert [x["bbox"] for x in found] == [pytest.approx(box, abs=1e-4) for box in case.boxes]
    assert {x["category_id"] for x in found} <= {case.category}
    is_crowd = 'iscrowd": 1' in case.written or "ignore" in case.written
    assert {x["iscrowd"] for x in found} <= {int(is_crowd)}
    for what, count in case.problems.items():
        assert f"{count} {what} (first: " in caplog.text
    assert bool(caplog.text) == bool(case.problems)

    split = examine_annotations("val", *split_content(data, "val"), input_size=[64, 64])
    said = {what: count for what, count, _ in split.problems}
    said.pop("splits without a single box", None)
    assert said == case.problems
    assert split.figures["boxes"] + round(split.figures["crowd_share"]) == len(case.boxes)


def test_a_polygon_of_a_yolo_file_is_its_hull():
    """A square of 20 px in 100 was read as the box (10, 20, 60, 40): its first four numbers."""
    problems = Problems()
    category, box = _parse("0 0.1 0.2 0.3 0.2 0.3 0.4 0.1 0.4", 1, problems, "a.txt line 1")
    assert category == 0 and box == pytest.approx([0.1, 0.2, 0.2, 0.2])
    assert str(problems) == "1 polygons, turned into their boxes (first: a.txt line 1)"


def test_an_empty_data_set_of_each_layout(tmp_path):
    """No annotation at all is fine: the images teach the background."""
    for form in LAYOUTS:
        (tmp_path / form).mkdir()
        case = LAYOUTS[form][0]._replace(written={"yolo": "", "voc": "<annotation/>"}.get(form, ""))
        data = write_data_set(form, case, tmp_path / form)
        if form == "json":
            path = Path(data["train"]["json"])
            path.write_text(json.dumps({**json.loads(path.read_text()), "annotations": []}))
        records = DatasetCatalog.get(split_name(data, "train"))
        assert records and not any(x["annotations"] for x in records)
