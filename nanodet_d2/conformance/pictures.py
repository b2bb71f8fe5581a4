"""The pictures of a kit: drawn where none are given."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from nanodet_d2.runtime.files import list_images
from nanodet_d2.runtime.images import load_image

logger = logging.getLogger(__name__)

COUNT = 3
# Height and width of the drawn ones as shares of the input's: a wide one, a tall one, and one that
# is scaled down in both. None is a round number, so that positions fall between pixels.
_SHARES = ((0.81, 1.63), (1.57, 0.73), (2.09, 1.87))
_FONT = cv2.FONT_HERSHEY_DUPLEX


def choose_pictures(given: Sequence[str | Path], height: int, width: int) -> dict[str, np.ndarray]:
    """Three pictures by name, (H, W, 3) uint8 BGR.

    Args:
        given: files and folders, of which a wide, a tall and the first other picture are taken; if
            none, pictures are drawn.
        height, width: of the network's input.

    Raises:
        FileNotFoundError, ValueError: for a path that is not there, or is no picture.
    """
    if not given:
        sizes = [(round(a * height), round(b * width)) for a, b in _SHARES]
        images = [draw(i, *size) for i, size in enumerate(sizes)]
    else:
        images = _three([load_image(path) for path in list_images(given)[: 4 * COUNT]])
    return {f"picture_{i}.png": image for i, image in enumerate(images)}


def _three(images: list[np.ndarray]) -> list[np.ndarray]:
    """A wide one, a tall one and the first others, as far as there are any."""
    wide = [i for i, x in enumerate(images) if x.shape[1] > x.shape[0]]
    tall = [i for i, x in enumerate(images) if x.shape[1] < x.shape[0]]
    for kind, found in (("wider than high", wide), ("higher than wide", tall)):
        if not found:
            logger.warning("kit: no picture is %s; a port that mixes up sides may pass", kind)
    chosen = list(dict.fromkeys(wide[:1] + tall[:1] + list(range(len(images)))))
    return [images[i] for i in chosen[:COUNT]]


def draw(index: int, height: int, width: int) -> np.ndarray:
    """A scene (height, width, 3) uint8 BGR of things that small detectors know, in plain colours,
    on a ground with fine structure, which shows where pixels come from."""
    rng = np.random.default_rng(index)
    y, x = np.mgrid[0:height, 0:width]
    fine = 14 * ((x // 3 + y // 5) % 2) + 10 * np.sin(0.9 * x + index) + 10 * np.sin(0.7 * y)
    slope = np.stack([60 + 90 * x / width, 150 - 70 * y / height, 90 + 60 * y / height], axis=2)
    image = np.clip(slope + fine[..., None], 0, 255).astype(np.uint8)
    size = min(height, width)
    for number, (row, column) in enumerate(_places(height, width)):
        reach = int(size * rng.uniform(0.13, 0.19))
        place = (int(column * width), int(row * height))
        _THINGS[(number + 2 * index) % len(_THINGS)](image, place, reach)
    return image


def _places(height: int, width: int) -> list[tuple[float, float]]:
    """Rows and columns of things, as shares."""
    long, short = (0.18, 0.5, 0.82), (0.28, 0.74)
    if height > width:
        return [(row, column) for row in long for column in short]
    return [(row, column) for row in short for column in long]


def _stop_sign(image: np.ndarray, place: tuple[int, int], reach: int) -> None:
    corners = np.array(cv2.ellipse2Poly(place, (reach, reach), 22, 0, 360, 45))
    cv2.fillPoly(image, [corners], (40, 30, 190), cv2.LINE_AA)
    cv2.polylines(image, [corners], True, (245, 245, 245), max(2, reach // 14), cv2.LINE_AA)
    _write(image, "STOP", place, 1.4 * reach)


def _clock(image: np.ndarray, place: tuple[int, int], reach: int) -> None:
    cv2.circle(image, place, reach, (30, 40, 60), -1, cv2.LINE_AA)
    cv2.circle(image, place, round(0.9 * reach), (235, 240, 240), -1, cv2.LINE_AA)
    for hour in range(12):
        turn = np.array([np.cos(hour * np.pi / 6), np.sin(hour * np.pi / 6)])
        a, b = (tuple(np.rint(place + turn * reach * share).astype(int)) for share in (0.72, 0.84))
        cv2.line(image, a, b, (20, 20, 20), max(1, reach // 16), cv2.LINE_AA)
    for x, y in ((0.05, -0.6), (0.42, 0.12)):
        hand = (round(place[0] + x * reach), round(place[1] + y * reach))
        cv2.line(image, place, hand, (20, 20, 20), max(2, reach // 12), cv2.LINE_AA)


def _ball(image: np.ndarray, place: tuple[int, int], reach: int) -> None:
    reach = round(0.8 * reach)
    cv2.circle(image, place, reach, (40, 130, 235), -1, cv2.LINE_AA)
    thick = max(1, reach // 16)
    cv2.circle(image, place, reach, (25, 50, 80), thick, cv2.LINE_AA)
    for axes in ((reach, reach // 3), (reach // 3, reach)):
        cv2.ellipse(image, place, axes, 0, 0, 360, (25, 50, 80), thick, cv2.LINE_AA)


def _lights(image: np.ndarray, place: tuple[int, int], reach: int) -> None:
    x, y = place
    half = round(0.45 * reach)
    cv2.rectangle(image, (x - half, y - reach), (x + half, y + reach), (30, 35, 30), -1)
    for share, colour in ((-0.62, (50, 50, 230)), (0.0, (40, 200, 240)), (0.62, (90, 220, 60))):
        cv2.circle(
            image, (x, round(y + share * reach)), round(0.26 * reach), colour, -1, cv2.LINE_AA
        )


def _letters(image: np.ndarray, place: tuple[int, int], reach: int) -> None:
    x, y = place
    half = round(0.75 * reach)
    cv2.rectangle(image, (x - half, y - half), (x + half, y + half), (240, 235, 225), -1)
    _write(image, "A8", place, 1.2 * reach, (120, 40, 20))


_THINGS = (_stop_sign, _clock, _lights, _ball, _letters)


def _write(
    image: np.ndarray,
    text: str,
    place: tuple[int, int],
    width: float,
    colour: tuple[int, int, int] = (245, 245, 245),
) -> None:
    """Text around a place, so many pixels wide."""
    (length, height), _ = cv2.getTextSize(text, _FONT, 1, 2)
    factor = width / length
    corner = (round(place[0] - width / 2), round(place[1] + factor * height / 2))
    thick = max(1, round(2 * factor))
    cv2.putText(image, text, corner, _FONT, factor, colour, thick, cv2.LINE_AA)
