"""Every argument of the augmentations is checked; the message names it and what is allowed."""

from __future__ import annotations

import pytest

from nanodet_d2.data import CopyPaste, MixUp, Mosaic, RandomColor, RandomWarp

NAN = float("nan")
WARP = dict(size=(32, 32))
SHARE = (-0.1, 1.1, NAN, "half", None)
RANGES = ((0.5,), (1.4, 0.6), (-1, 1), (NAN, 1), 1.0, "ab", None, (0.5, float("inf")))

CASES = [
    (RandomWarp, {}, "size", ((0, 32), (32,), (32.5, 32), (32, 32, 32)), "1 or more"),
    (RandomWarp, WARP, "perspective", (-1e-3, 0.5, NAN, "x"), "0 to 0.01"),
    (RandomWarp, WARP, "scale", (*RANGES, (0, 1)), "0 < low <= high"),
    (RandomWarp, WARP, "stretch", (((1, 1), (0, 1)), ((1, 1),), ((1, 1), (1, NAN))), ""),
    (RandomWarp, WARP, "rotation", (-1, 181, NAN), "0 to 180"),
    (RandomWarp, WARP, "shear", (-1, 90, NAN), "0 to below 90"),
    (RandomWarp, WARP, "flip", SHARE, "0 to 1"),
    (RandomWarp, WARP, "translate", SHARE, "0 to 1"),
    (RandomColor, {}, "brightness", SHARE, "0 to 1"),
    (RandomColor, {}, "contrast", RANGES, "0 <= low <= high"),
    (RandomColor, {}, "saturation", RANGES, "0 <= low <= high"),
    (Mosaic, {}, "probability", SHARE, "0 to 1"),
    (Mosaic, {}, "center", (0, 0.6, NAN), "above 0, at most 0.5"),
    (MixUp, {}, "probability", SHARE, "0 to 1"),
    (MixUp, {}, "alpha", (0, -1, NAN, float("inf")), "above 0"),
    (CopyPaste, {}, "probability", SHARE, "0 to 1"),
    (CopyPaste, {}, "max_objects", (0, 1.5, True), "1 or more"),
    (CopyPaste, {}, "max_hidden", SHARE, "0 to 1"),
]


@pytest.mark.parametrize(
    ("kind", "others", "name", "value", "allowed"),
    [
        pytest.param(kind, others, name, value, allowed, id=f"{kind.__name__}-{name}-{value}")
        for kind, others, name, values, allowed in CASES
        for value in values
    ],
)
def test_values_out_of_range_name_key_and_range(kind, others, name, value, allowed):
    with pytest.raises(ValueError) as error:
        kind(**{**others, name: value})
    assert f"{kind.__name__} {name}" in str(error.value)
    assert "allowed: " in str(error.value) and allowed in str(error.value)


def test_the_limits_themselves_are_allowed():
    RandomWarp(
        (1, 1), perspective=0.01, scale=(1e-3, 1e-3), rotation=180, shear=89, flip=1, translate=1
    )
    RandomColor(1, (0, 0), (0, 9))
    Mosaic(0, 0.5), MixUp(1, 1e-3), CopyPaste(1, 1, 0), CopyPaste(max_hidden=1)
