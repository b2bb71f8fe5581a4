"""Mistakes on the way from the picture to the network's input.

Between the steps: a resized picture (H, W, 3) in BGR, of grey levels, which need not be whole; then
the tensor (3, H, W).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cv2
import numpy as np

from nanodet_d2.runtime.preprocess import stretch

from .step import Case, Function, Step


def _stretch(image: np.ndarray, case: Case) -> np.ndarray:
    return stretch(image, case.x.input.height, case.x.input.width)


def _resize(interpolation: int) -> Function:
    """OpenCV's function for it, whose pixels have half-pixel centres."""

    def resize(image: np.ndarray, case: Case) -> np.ndarray:
        size = (case.x.input.width, case.x.input.height)
        return cv2.resize(image, size, interpolation=interpolation)

    return resize


def _sample(
    positions: Callable[[int, int], np.ndarray], *, border: int = cv2.BORDER_REPLICATE
) -> Function:
    """Bilinear between pixels, at ``positions(size in, size out)``, with all their bits."""

    def sample(image: np.ndarray, case: Case) -> np.ndarray:
        sizes = zip(image.shape[:2], (case.x.input.height, case.x.input.width))
        y, x = (positions(size, out) for size, out in sizes)
        image = image.astype(np.float32)
        if border == cv2.BORDER_CONSTANT:
            image = np.pad(image, ((0, 1), (0, 1), (0, 0)))
        rows = _between(image, y, 0)
        return np.floor(_between(rows, x, 1) + 0.5)

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


def _by_index(size: int, out: int) -> np.ndarray:
    return np.arange(out) * (size / out)


def _by_index_in_steps(size: int, out: int) -> np.ndarray:
    return np.rint(_by_index(size, out) * 32) / 32


def _aligned_corners(size: int, out: int) -> np.ndarray:
    return np.arange(out) * ((size - 1) / max(out - 1, 1))


def _fit(*, fill: float | None, centred: bool, inside: bool, half_pixel: bool) -> Function:
    """One factor for both sides: all of the picture ``inside`` the input with a border around, or
    the input filled with a part of it."""

    def fit(image: np.ndarray, case: Case) -> np.ndarray:
        height, width = case.x.input.height, case.x.input.width
        rows, columns = image.shape[:2]
        choose = min if inside else max
        factor = choose(height / rows, width / columns)
        size = (max(1, round(columns * factor)), max(1, round(rows * factor)))
        if half_pixel:
            small = cv2.resize(image, size)
        else:
            small = stretch(image, size[1], size[0])
        mean = np.array(case.x.input.mean)
        mean = mean[::-1] if case.x.input.channel_order == "RGB" else mean
        canvas = np.empty((height, width, 3), np.float32)
        canvas[:] = mean if fill is None else fill
        y, x = ((height - size[1]) // 2, (width - size[0]) // 2) if centred else (0, 0)
        if inside:
            canvas[y : y + size[1], x : x + size[0]] = small
            return canvas
        return small[-y : height - y, -x : width - x]

    return fit


def _fits() -> Iterator[tuple[str, Function]]:
    for place, centred in (("in the middle", True), ("in the upper left corner", False)):
        for name, fill in (("114", 114.0), ("black", 0.0), ("128", 128.0), ("the mean", None)):
            for pixels, half in (("", True), (", without half-pixel centres", False)):
                words = f"input: letterboxed in place of stretched ({place}, border {name}{pixels})"
                yield words, _fit(fill=fill, centred=centred, inside=True, half_pixel=half)
    for place, centred in (("the middle", True), ("the upper left", False)):
        words = f"input: cropped in place of stretched ({place} is kept)"
        yield words, _fit(fill=0.0, centred=centred, inside=False, half_pixel=True)


RESIZE = Step(
    _stretch,
    {
        "input: resized with half-pixel centres": _resize(cv2.INTER_LINEAR),
        "input: resized to the nearest pixel": _resize(cv2.INTER_NEAREST),
        "input: resized by averages of areas": _resize(cv2.INTER_AREA),
        "input: resized by cubic interpolation": _resize(cv2.INTER_CUBIC),
        "input: resized with aligned corners": _sample(_aligned_corners),
        "input: positions not rounded to 1/32 pixel": _sample(
            _by_index, border=cv2.BORDER_CONSTANT
        ),
        "input: the edge repeated beyond it, not black": _sample(_by_index_in_steps),
        "input: positions not rounded to 1/32 pixel, and the edge repeated beyond it": _sample(
            _by_index
        ),
        **dict(_fits()),
    },
)


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
