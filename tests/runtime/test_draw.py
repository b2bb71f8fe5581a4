"""Pictures of detections: boxes in place, labels that can be read."""

from __future__ import annotations

import itertools
import sys

import numpy as np
import pytest

from nanodet_d2.runtime import Detections, draw
from nanodet_d2.runtime.draw import class_color, contact_sheet, draw_boxes, draw_detections

GREY = 128


def grey(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), GREY, np.uint8)


def detections(boxes, classes, names=("dog", "lamp"), size=(480, 640)) -> Detections:
    count = len(boxes)
    return Detections(
        xyxy=np.float32(boxes).reshape(-1, 4),
        confidence=np.linspace(0.9, 0.5, count, dtype=np.float32),
        class_id=np.int64(classes),
        class_names=tuple(names),
        image_size=size,
    )


@pytest.fixture
def places(monkeypatch) -> list[tuple[int, int, int, int]]:
    """Where texts were written, XYXY, in the order of the boxes."""
    seen = []
    put = draw._put

    def noting(image, mask, corner, color):
        x, y = corner
        seen.append((x, y, x + mask.shape[1], y + mask.shape[0]))
        put(image, mask, corner, color)

    monkeypatch.setattr(draw, "_put", noting)
    return seen


def overlap(a, b) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(0, width) * max(0, height)


def ink(text: str, color_of: int = 0) -> np.ndarray:
    """Which pixels of its label a text covers."""
    image = grey(100, 400)
    drawn = draw_boxes(image, np.float32([[5, 60, 395, 95]]), [text], [color_of])
    label = drawn[:55]
    return (label != GREY).any(axis=2) & (label != class_color(color_of)).any(axis=2)


def test_boxes_are_drawn_in_place():
    image = grey(48, 120)
    found = detections([[20, 20, 40, 30]], [1], size=(48, 120))
    drawn = draw_detections(image, found)
    changed = np.argwhere((drawn != image).any(axis=2))
    assert (image == GREY).all() and drawn.shape == image.shape and drawn.dtype == np.uint8
    assert changed[:, 1].min() >= 18 and (drawn[20:31, 20] != GREY).any(axis=1).all()
    assert (drawn[20:31, 40] != GREY).any(axis=1).all()
    assert (drawn[23:28, 23:38] == GREY).all()  # the object can be seen
    assert (draw_detections(image, found[:0]) == image).all()


def test_labels_of_boxes_side_by_side_cover_nothing(places):
    """A crowd with room above and below."""
    boxes = [[x, 200, x + 70, 300] for x in range(10, 560, 90)]
    draw_detections(grey(480, 640), detections(boxes, [0] * len(boxes)))
    assert len(places) == len(boxes)
    assert not any(overlap(a, b) for a, b in itertools.combinations(places, 2))
    assert not any(overlap(place, box) for place in places for box in boxes)


@pytest.mark.parametrize(
    "boxes, room",
    [
        ([[100, 100, 300, 300], [100, 105, 300, 300]], True),  # nearly the same
        ([[100, 100, 300, 300], [120, 85, 280, 99]], True),  # where the other's label would be
        ([[500, 440, 640, 480], [510, 430, 640, 480]], True),  # in a corner
        ([[0, 0, 100, 60], [0, 0, 90, 50], [0, 0, 80, 40]], False),  # each inside the last one
        ([[10, 10, 630, 470], [200, 200, 260, 260]], False),
    ],
)
def test_labels_cover_neither_each_other_nor_boxes_where_there_is_room(places, boxes, room):
    drawn = draw_detections(grey(480, 640), detections(boxes, range(len(boxes)), "abc"))
    assert drawn.shape == (480, 640, 3)
    for x0, y0, x1, y1 in places:
        assert 0 <= x0 and 0 <= y0 and x1 <= 640 and y1 <= 480
    assert not any(overlap(a, b) for a, b in itertools.combinations(places, 2))
    assert not room or not any(overlap(place, box) for place in places for box in boxes)
    assert not any(overlap(place, box) for place, box in zip(places[1:], boxes[1:]))  # its own


def test_a_hundred_boxes_are_labelled_as_well_as_it_goes(places):
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 400, (100, 2))
    boxes = np.hstack([low, low + rng.uniform(5, 200, (100, 2))])
    draw_detections(grey(480, 640), detections(boxes, rng.integers(0, 2, 100)))
    covered = sum(overlap(a, b) for a, b in itertools.combinations(places, 2))
    written = sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in places)
    assert len(places) == 100 and covered < 0.5 * written


def test_the_best_lies_on_top():
    boxes = np.float32([[50, 50, 200, 200], [50, 50, 200, 200]])
    drawn = draw_boxes(grey(480, 640), boxes, ["a", "b"], [0, 1])
    assert tuple(drawn[125, 50]) == class_color(0)


def test_colours_of_classes_differ():
    colors = np.array([class_color(i) for i in range(80)], int)
    assert ((colors >= 0) & (colors <= 255)).all()
    assert len({tuple(x) for x in colors.tolist()}) == 80
    few = colors[:10]  # which most data sets have
    distances = np.abs(few[:, None] - few).sum(axis=2) + 1000 * np.eye(10)
    assert distances.min() >= 60
    assert class_color(5000) == class_color(5000)


def test_text_is_legible_on_each_colour():
    for label in range(40):
        drawn = draw_boxes(grey(100, 400), np.float32([[5, 60, 395, 95]]), ["dog"], [label])
        written = drawn[:55][ink("dog", label)]
        contrast = np.abs((written - np.float64(class_color(label))) @ (0.114, 0.587, 0.299))
        assert contrast.max() > 90 and len(written) > 20


def test_formulas_are_drawn_as_they_are_written():
    formula, plain = ink("$a_b$"), ink("a_b")
    assert formula.any(axis=0).sum() > plain.any(axis=0).sum() + 10  # the dollars, too


@pytest.mark.parametrize("text", ["Ωmega 90%", "Hündin", "собака"])
def test_letters_beyond_ascii_are_drawn(text):
    question = "".join(x if x.isascii() else "?" for x in text)
    assert ink(text).sum() > 20 and not np.array_equal(ink(text), ink(question))
    different = "".join(x if x.isascii() else "ж" for x in text)
    assert not np.array_equal(ink(text), ink(different))  # no boxes for what a font lacks


def test_letters_beyond_ascii_without_pillow(monkeypatch):
    draw._font.cache_clear()
    draw._text_mask.cache_clear()
    monkeypatch.setitem(sys.modules, "PIL", None)
    try:
        np.testing.assert_array_equal(ink("Ωmega"), ink("?mega"))
    finally:
        draw._font.cache_clear()
        draw._text_mask.cache_clear()


def test_odd_pictures_and_boxes(places):
    for image in (grey(1, 1), grey(5, 300), grey(300, 5), grey(4000, 3000)):
        height, width = image.shape[:2]
        boxes = [[0, 0, width, height], [-5, -5, 2 * width, 2 * height], [0, 0, 0, 0]]
        drawn = draw_detections(image, detections(boxes, [0, 1, 0], size=(height, width)))
        assert drawn.shape == image.shape and (drawn != image).any()
    lines = [y1 - y0 for _, y0, _, y1 in places]
    assert lines[-1] > 3 * lines[0]  # large pictures have large letters


def test_sheets_of_pictures():
    rows = [[grey(40, 60), grey(50, 30)], [grey(20, 20), grey(50, 60)]]
    sheet = contact_sheet(rows, ["left", "right"])
    assert sheet.dtype == np.uint8 and sheet.shape[1] == 2 * (60 + 8)
    assert sheet.shape[0] == 40 + 2 * (50 + 8)
    assert (sheet[40:80, :60] == GREY).all() and (sheet[90:, 60:68] == 255).all()
    assert (sheet[:40, :68] < 100).any() and (sheet[:40, 68:] < 100).any()  # titles
