"""Mistakes on the way from the picture to the network's input.

Between the steps: a resized picture (H, W, 3) in BGR, of grey levels, which need not be whole; then
the tensor (3, H, W).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cv2
import numpy as np

from nanodet_d2.runtime.metadata import FIT, STRETCH
from nanodet_d2.runtime.preprocess import stretch, warp

from .step import Case, Function, Step

# Grey levels (height, width, 3) of an image that is resized to height and width.
Resize = Callable[[np.ndarray, int, int], np.ndarray]
# Where so many pixels lie in an image's side of another size: from size, number, factor and shift.
Positions = Callable[[int, int, float, float], np.ndarray]
_BORDERS = {"114": 114.0, "black": 0.0, "128": 128.0, "the mean": None}  # None: of the contract


def _stretched(resize: Resize) -> Function:
    """To the whole input."""
    return lambda image, case: resize(image, case.x.input.height, case.x.input.width)


def _fitted(resize: Resize | None = None, *, fill: float | None = None) -> Function:
    """To the part of the input that the contract has for the image; as the contract has it if
    ``resize`` is None."""

    def fit(image: np.ndarray, case: Case) -> np.ndarray:
        canvas, part = _canvas(case, fill), case.fit
        size = part.height, part.width
        small = resize(image, *size) if resize else warp(image, part.matrix, *size)
        canvas[: part.height, : part.width] = small
        return canvas

    return fit


def _canvas(case: Case, fill: float | None) -> np.ndarray:
    """(height, width, 3) float32 of one colour, the mean if None."""
    described = case.x.input
    mean = described.mean[::-1] if described.channel_order == "RGB" else described.mean
    canvas = np.empty((described.height, described.width, 3), np.float32)
    canvas[:] = mean if fill is None else fill
    return canvas


def _by_opencv(interpolation: int) -> Resize:
    """OpenCV's function for it, whose pixels have half-pixel centres."""
    return lambda image, height, width: cv2.resize(
        image, (width, height), interpolation=interpolation
    )


def _sample(positions: Positions, *, border: int = cv2.BORDER_REPLICATE) -> Function:
    """Bilinear between pixels at positions that have all their bits."""

    def sample(image: np.ndarray, case: Case) -> np.ndarray:
        def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
            y = positions(image.shape[0], height, case.scale[1], case.shift[1])
            x = positions(image.shape[1], width, case.scale[0], case.shift[0])
            image = image.astype(np.float32)
            if border == cv2.BORDER_CONSTANT:
                image, y, x = np.pad(image, ((1, 1), (1, 1), (0, 0))), y + 1, x + 1
            return np.floor(_between(_between(image, y, 0), x, 1) + 0.5)

        place: Callable[[Resize], Function] = _fitted if case.x.input.resize == FIT else _stretched
        return place(resize)(image, case)

    return sample


def _between(image: np.ndarray, positions: np.ndarray, axis: int) -> np.ndarray:
    """Values at positions of one axis; beyond the edge those of the edge."""
    last = image.shape[axis] - 1
    positions = positions.clip(0, last)
    low = np.floor(positions).astype(int)
    share = (positions - low).astype(np.float32)
    share = share[:, None, None] if axis == 0 else share[None, :, None]
    before, after = (image.take(i, axis) for i in (low, np.minimum(low + 1, last)))
    return before * (1 - share) + after * share


def _by_index(size: int, out: int, factor: float, shift: float) -> np.ndarray:
    return (np.arange(out) - shift) / factor


def _by_index_in_steps(size: int, out: int, factor: float, shift: float) -> np.ndarray:
    return np.rint(_by_index(size, out, factor, shift) * 32) / 32


def _without_shift(size: int, out: int, factor: float, shift: float) -> np.ndarray:
    return _by_index_in_steps(size, out, factor, 0.0)


def _aligned_corners(size: int, out: int, factor: float, shift: float) -> np.ndarray:
    return np.arange(out) * ((size - 1) / max(out - 1, 1))


def _boxed(*, fill: float | None, centred: bool, inside: bool, half_pixel: bool) -> Function:
    """One factor for both sides: all of the picture ``inside`` the input with a border around, or
    the input filled with a part of it."""

    def box(image: np.ndarray, case: Case) -> np.ndarray:
        height, width = case.x.input.height, case.x.input.width
        rows, columns = image.shape[:2]
        choose = min if inside else max
        factor = choose(height / rows, width / columns)
        size = (max(1, round(columns * factor)), max(1, round(rows * factor)))
        if half_pixel:
            small = cv2.resize(image, size)
        else:
            small = stretch(image, size[1], size[0])
        y, x = ((height - size[1]) // 2, (width - size[0]) // 2) if centred else (0, 0)
        if inside:
            canvas = _canvas(case, fill)
            canvas[y : y + size[1], x : x + size[0]] = small
            return canvas
        return small[-y : height - y, -x : width - x]

    return box


def _boxes(how: str) -> Iterator[tuple[str, Function]]:
    """
    Args:
        how: what is done in place of what.
    """
    for place, centred in (("in the middle", True), ("in the upper left corner", False)):
        for name, fill in _BORDERS.items():
            for pixels, half in (("", True), (", without half-pixel centres", False)):
                words = f"input: letterboxed {how} ({place}, border {name}{pixels})"
                yield words, _boxed(fill=fill, centred=centred, inside=True, half_pixel=half)
    for place, centred in (("the middle", True), ("the upper left", False)):
        words = f"input: cropped {how} ({place} is kept)"
        yield words, _boxed(fill=0.0, centred=centred, inside=False, half_pixel=True)


def _resized(place: Callable[[Resize], Function]) -> dict[str, Function]:
    """Mistakes in what is between the pixels, wherever the picture is placed."""
    return {
        "input: resized with half-pixel centres": place(_by_opencv(cv2.INTER_LINEAR)),
        "input: resized to the nearest pixel": place(_by_opencv(cv2.INTER_NEAREST)),
        "input: resized by averages of areas": place(_by_opencv(cv2.INTER_AREA)),
        "input: resized by cubic interpolation": place(_by_opencv(cv2.INTER_CUBIC)),
        "input: resized with aligned corners": _sample(_aligned_corners),
        "input: positions not rounded to 1/32 pixel": _sample(
            _by_index, border=cv2.BORDER_CONSTANT
        ),
        "input: the edge repeated beyond it, not black": _sample(_by_index_in_steps),
        "input: positions not rounded to 1/32 pixel, and the edge repeated beyond it": _sample(
            _by_index
        ),
    }


RESIZE = {
    STRETCH: Step(
        _stretched(stretch), {**_resized(_stretched), **dict(_boxes("in place of stretched"))}
    ),
    FIT: Step(
        _fitted(),
        {
            "input: stretched, not fitted": _stretched(stretch),
            "input: stretched, not fitted, with half-pixel centres": _stretched(
                _by_opencv(cv2.INTER_LINEAR)
            ),
            **_resized(_fitted),
            "input: not moved by what its rounded size leaves over": _sample(
                _without_shift, border=cv2.BORDER_CONSTANT
            ),
            **{
                f"input: fitted with a border of {name}, not of the mean": _fitted(fill=fill)
                for name, fill in _BORDERS.items()
                if fill is not None
            },
            **dict(_boxes("otherwise")),
        },
    ),
}


def _colour(
    values: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    *,
    swap_before: bool = False,
    swap_after: bool = False,
) -> Function:
    """``values(grey levels (H, W, 3) in the contract's order, mean, std)`` as planes."""

    def colour(image: np.ndarray, case: Case) -> np.ndarray:
        described = case.x.input
        if (described.channel_order == "RGB") != swap_before:
            image = image[..., ::-1]
        mean, std = np.array([described.mean, described.std])
        result = values(image.astype(np.float64), mean, std)
        result = result[..., ::-1] if swap_after else result
        return result.transpose(2, 0, 1)

    return colour


def _normal(p: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    return (p - mean) / std


COLOUR = Step(
    _colour(_normal),
    {
        "input: channels swapped": _colour(_normal, swap_before=True),
        "input: channels swapped after normalisation": _colour(_normal, swap_after=True),
        "input: normalised with mean and deviation exchanged": _colour(lambda p, m, s: (p - s) / m),
        "input: not normalised": _colour(lambda p, m, s: p),
        "input: scaled to 0..1, not normalised": _colour(lambda p, m, s: p / 255),
        "input: scaled to 0..1 before normalisation": _colour(lambda p, m, s: (p / 255 - m) / s),
        "input: scaled to -1..1, not normalised": _colour(lambda p, m, s: p / 127.5 - 1),
        "input: mean not subtracted": _colour(lambda p, m, s: p / s),
        "input: not divided by the deviation": _colour(lambda p, m, s: p - m),
        "input: multiplied by the deviation": _colour(lambda p, m, s: (p - m) * s),
        "input: mean added": _colour(lambda p, m, s: (p + m) / s),
        "input: mean subtracted after the division": _colour(lambda p, m, s: p / s - m),
        "input: channels, mean and deviation in different orders": _colour(
            lambda p, m, s: (p - m[::-1]) / s[::-1]
        ),
        "input: normalised with the mean of all channels": _colour(
            lambda p, m, s: (p - m.mean()) / s.mean()
        ),
    },
)


def _in_memory(axes: tuple[int, int, int]) -> Function:
    """The memory of other axes, taken for (3, H, W)."""
    return lambda tensor, case: tensor.transpose(axes).reshape(tensor.shape)


LAYOUT = Step(
    lambda tensor, case: tensor,
    {
        "layout: HWC in place of CHW": _in_memory((1, 2, 0)),
        "layout: CWH in place of CHW, columns before rows": _in_memory((0, 2, 1)),
        "layout: WHC in place of CHW": _in_memory((2, 1, 0)),
        "input: upside down": lambda tensor, case: tensor[:, ::-1],
        "input: mirrored": lambda tensor, case: tensor[:, :, ::-1],
    },
)
