"""The reference's geometric augmentation: one projective warp.

Pixels are addressed by their index, with no half-pixel centre: plain resizing to half the size
takes every other pixel. The official weights expect this; ``cv2.resize`` would shift the image.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Sequence
from typing import Union

import cv2
import numpy as np
from detectron2.data.transforms import Augmentation, Transform

from nanodet_d2.runtime.preprocess import MAX_SIDE, fit_of, warp

from .checks import require_number, require_range

Range = tuple[float, float]  # low, high
Pair = Union[Sequence[float], np.ndarray]  # x, y
MAX_PERSPECTIVE = 0.01  # beyond, images of 200 px are turned inside out


SHIFT = 1e-6  # pixels; less is a rounding


class WarpTransform(Transform):
    """Warp by a 3 x 3 matrix on pixel indices, bilinear, black outside.

    Args:
        matrix: (3, 3), from input to output, column vectors (x, y, 1).
        height, width: size of the output.
        quick: see :func:`quick_warp`; for training, not for evaluation.
    """

    def __init__(self, matrix: np.ndarray, height: int, width: int, quick: bool = False):
        super().__init__()
        self._set_attributes(locals())

    @property
    def shifts(self) -> bool:
        """Whether it moves the upper left corner: a plain stretching does not."""
        return bool(np.abs(self.matrix[:2, 2]).max() > SHIFT)

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Warp an image (H, W) or (H, W, C)."""
        transform = quick_warp if self.quick else warp
        return transform(img, self.matrix, self.height, self.width)

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Warp a label map (H, W) by the nearest pixel."""
        return warp(segmentation, self.matrix, self.height, self.width, cv2.INTER_NEAREST)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Map points (K, 2)."""
        points = np.concatenate([coords, np.ones((len(coords), 1))], axis=1) @ self.matrix.T
        return points[:, :2] / points[:, 2:]


def quick_warp(image: np.ndarray, matrix: np.ndarray, height: int, width: int) -> np.ndarray:
    """As ``warp``, bilinear, in less time: what shows nothing of the image stays black uncomputed.

    Without perspective it is ``cv2.warpAffine``, which finds positions by adding up steps of
    1/1024 of a pixel, where ``cv2.warpPerspective`` divides. Both round them to 1/32 then, so that
    few pixels differ, and these by the grey levels that lie within 1/32 of a pixel.
    """
    if max(image.shape[:2]) > MAX_SIDE or matrix[2].tolist() != [0, 0, 1]:
        return warp(image, matrix, height, width)
    left, top, right, bottom = _shown_part(image, matrix, height, width)
    out = np.zeros((height, width, *image.shape[2:]), image.dtype)
    if left < right and top < bottom:
        part = out[top:bottom, left:right]
        moved = matrix[:2] - [[0, 0, left], [0, 0, top]]
        cv2.warpAffine(image, moved, (right - left, bottom - top), part)  # into place
    return out


def _shown_part(
    image: np.ndarray, matrix: np.ndarray, height: int, width: int
) -> tuple[int, int, int, int]:
    """XYXY of the part of an affine warp's output that the image's pixels have a share in."""
    rows, columns = image.shape[:2]
    # A pixel fades out towards its neighbours: beyond the border, too.
    corners = [[-1, columns, -1, columns], [-1, -1, rows, rows], [1, 1, 1, 1]]
    x, y = matrix[:2] @ corners
    left, top = max(math.floor(x.min()), 0), max(math.floor(y.min()), 0)
    right, bottom = min(math.ceil(x.max()) + 1, width), min(math.ceil(y.max()) + 1, height)
    return left, top, right, bottom


class RandomWarp(Augmentation):
    """Perspective, scale, stretch, rotation, shear, flip and translation in one warp.

    With the defaults it only stretches the image to ``size``: the evaluation's input.

    Args:
        size: (height, width) of the output.
        keep_ratio: keep the image's aspect ratio; the output then is smaller than ``size`` in one
            direction.
        perspective: largest absolute value of the two perspective entries, 0 to 0.01.
        scale: range of the factor, above 0.
        stretch: ranges of the factors of width and height, above 0.
        rotation: largest angle, 0 to 180 degrees; positive is counter-clockwise.
        shear: largest angle of each direction, 0 to below 90 degrees.
        flip: probability of a horizontal flip.
        translate: largest shift as a share of the image's size, 0 to 1.

    Raises:
        ValueError: for a value out of its range; the message names both.
    """

    def __init__(
        self,
        size: Sequence[int],
        *,
        keep_ratio: bool = False,
        perspective: float = 0.0,
        scale: Range = (1.0, 1.0),
        stretch: Sequence[Range] = ((1.0, 1.0), (1.0, 1.0)),
        rotation: float = 0.0,
        shear: float = 0.0,
        flip: float = 0.0,
        translate: float = 0.0,
    ):
        super().__init__()
        _require_size(size)
        require_range("RandomWarp scale", scale, 0, above_low=True)
        if len(stretch) != 2:
            raise ValueError(f"RandomWarp stretch {stretch}; allowed: two ranges, width and height")
        for i in range(2):
            require_range(f"RandomWarp stretch[{i}]", stretch[i], 0, above_low=True)
        require_number("RandomWarp perspective", perspective, 0, MAX_PERSPECTIVE)
        require_number("RandomWarp rotation", rotation, 0, 180)
        require_number("RandomWarp shear", shear, 0, 90, below_high=True)
        require_number("RandomWarp flip", flip, 0, 1)
        require_number("RandomWarp translate", translate, 0, 1)
        self.size = (size[0], size[1])
        self.keep_ratio = keep_ratio
        self.perspective = perspective
        self.scale = scale
        self.stretch = stretch
        self.rotation = rotation
        self.shear = shear
        self.flip = flip
        self.translate = translate

    @property
    def is_random(self) -> bool:
        """Whether it does more than the evaluation's stretching, and need not meet its pixels."""
        angles = self.rotation, self.shear, self.perspective, self.flip, self.translate
        factors = self.scale, *self.stretch
        return any(angles) or any(tuple(x) != (1.0, 1.0) for x in factors)

    def resized(self, size: Sequence[int]) -> RandomWarp:
        """The same augmentation with another output (height, width)."""
        other = copy.copy(self)
        other.size = (size[0], size[1])
        return other

    def get_transform(self, image: np.ndarray) -> WarpTransform:
        height, width = image.shape[:2]
        uniform = np.random.uniform
        out_height, out_width = output_size(height, width, self.size, keep_ratio=self.keep_ratio)
        matrix = warp_matrix(
            (height, width),
            (out_height, out_width),
            keep_ratio=self.keep_ratio,
            perspective=uniform(-self.perspective, self.perspective, 2),
            scale=uniform(*self.scale),
            stretch=(uniform(*self.stretch[0]), uniform(*self.stretch[1])),
            rotation=uniform(-self.rotation, self.rotation),
            shear=uniform(-self.shear, self.shear, 2),
            flip=np.random.random() < self.flip,
            translate=uniform(0.5 - self.translate, 0.5 + self.translate, 2),
        )
        return WarpTransform(matrix, out_height, out_width, quick=self.is_random)


def output_size(
    height: int, width: int, size: tuple[int, int], *, keep_ratio: bool
) -> tuple[int, int]:
    """(height, width) after the warp: ``size``, or with ``keep_ratio`` what fits into it."""
    if not keep_ratio:
        return size
    fit = fit_of(height, width, size[0], size[1])
    return fit.height, fit.width


def warp_matrix(
    in_size: tuple[int, int],
    out_size: tuple[int, int],
    *,
    keep_ratio: bool = False,
    perspective: Pair = (0.0, 0.0),
    scale: float = 1.0,
    stretch: Sequence[float] = (1.0, 1.0),
    rotation: float = 0.0,
    shear: Pair = (0.0, 0.0),
    flip: bool = False,
    translate: Pair = (0.5, 0.5),
) -> np.ndarray:
    """Matrix (3, 3) of the reference's warp, for the given draws.

    The image is moved to the origin, transformed there in the order of the arguments, moved so
    that its centre lies at ``translate`` (shares of its size), and resized to ``out_size``.

    Args:
        in_size, out_size: (height, width).
        rotation, shear: degrees.
    """
    height, width = in_size
    cos, sin = math.cos(math.radians(rotation)), math.sin(math.radians(rotation))
    shear_x, shear_y = (math.tan(math.radians(x)) for x in shear)
    factors = [
        _resize_matrix(in_size, out_size, keep_ratio=keep_ratio),
        _translation(translate[0] * width, translate[1] * height),
        np.diag([-1.0 if flip else 1.0, 1.0, 1.0]),
        np.array([[1, shear_x, 0], [shear_y, 1, 0], [0, 0, 1]]),
        np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]),
        np.diag([stretch[0], stretch[1], 1.0]),
        np.diag([scale, scale, 1.0]),
        np.array([[1, 0, 0], [0, 1, 0], [perspective[0], perspective[1], 1]]),
        _translation(-width / 2, -height / 2),
    ]
    # From the right, in the order of np.linalg.multi_dot, which takes longer to find it.
    return functools.reduce(lambda right, left: np.dot(left, right), reversed(factors))


def _resize_matrix(
    in_size: tuple[int, int], out_size: tuple[int, int], *, keep_ratio: bool
) -> np.ndarray:
    (height, width), (out_height, out_width) = in_size, out_size
    if not keep_ratio:
        return np.diag([out_width / width, out_height / height, 1.0])
    ratio = min(out_height / height, out_width / width)
    return (
        _translation(out_width / 2, out_height / 2)
        @ np.diag([ratio, ratio, 1.0])
        @ _translation(-width / 2, -height / 2)
    )


def _translation(x: float, y: float) -> np.ndarray:
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def _require_size(size: Sequence[int]) -> None:
    if len(size) != 2 or not all(isinstance(x, int) and x >= 1 for x in size):
        raise ValueError(
            f"RandomWarp size {list(size)}; allowed: (height, width), whole numbers of 1 or more"
        )
