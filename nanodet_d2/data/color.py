"""The reference's colour change, on uint8 pixels."""

from __future__ import annotations

import cv2
import numpy as np
from detectron2.data.transforms import Augmentation, NoOpTransform, Transform

from .checks import require_number, require_range

Range = tuple[float, float]  # low, high


class AdjustColor(Transform):
    """Brightness, then contrast, then saturation of a uint8 image (H, W, 3); boxes stay.

    Args:
        brightness: shift of all channels, as a share of 255.
        contrast: factor on all channels.
        saturation: factor on the S of HSV.
    """

    def __init__(self, brightness: float = 0.0, contrast: float = 1.0, saturation: float = 1.0):
        super().__init__()
        self._set_attributes(locals())

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        return adjust_color(img, self.brightness, self.contrast, self.saturation)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return segmentation

    def inverse(self) -> Transform:
        return NoOpTransform()


class RandomColor(Augmentation):
    """Brightness, contrast and saturation of a uint8 image, each with probability 1/2.

    The result is rounded and clipped to uint8; the reference goes on with unbounded floats.

    Args:
        brightness: largest absolute shift, as a share of 255.
        contrast: range of the factor on all channels.
        saturation: range of the factor on the S of HSV.

    Raises:
        ValueError: for a range that is not (low, high), or a brightness outside 0 to 1.
    """

    def __init__(
        self,
        brightness: float = 0.2,
        contrast: Range = (0.6, 1.4),
        saturation: Range = (0.5, 1.2),
    ):
        super().__init__()
        require_number("RandomColor brightness", brightness, 0, 1)
        require_range("RandomColor contrast", contrast, 0)
        require_range("RandomColor saturation", saturation, 0)
        self.brightness = brightness
        self.contrast = contrast
        self.saturation = saturation

    def get_transform(self, image: np.ndarray) -> AdjustColor:
        def drawn(low: float, high: float, neutral: float) -> float:
            return np.random.uniform(low, high) if np.random.randint(2) else neutral

        return AdjustColor(
            brightness=drawn(-self.brightness, self.brightness, 0.0),
            contrast=drawn(*self.contrast, 1.0),
            saturation=drawn(*self.saturation, 1.0),
        )


def adjust_color(
    image: np.ndarray, brightness: float = 0.0, contrast: float = 1.0, saturation: float = 1.0
) -> np.ndarray:
    """Shift, scale and saturate a uint8 image (H, W, 3). ``brightness`` is a share of 255.

    Scaling the S of HSV by f moves a channel c to V + f (c - V), where V is the pixel's largest
    channel. So all three steps are one weighted sum of c and V, rounded and clipped once.

    Returns:
        (H, W, 3) uint8; of a saturated image each channel lies in one piece, as a sample wants it.
    """
    shift = 255 * contrast * brightness
    if saturation == 1:
        if shift == 0 and contrast == 1:
            return image
        table = np.arange(256) * contrast + shift
        return cv2.LUT(image, np.clip(np.rint(table), 0, 255).astype(np.uint8))
    blue, green, red = cv2.split(image)
    value = cv2.max(cv2.max(blue, green), red)
    weights = contrast * saturation, contrast * (1 - saturation)
    planes = np.empty((3, *image.shape[:2]), np.uint8)
    for channel, plane in zip((blue, green, red), planes):
        cv2.addWeighted(channel, weights[0], value, weights[1], shift, plane)  # into place
    return planes.transpose(1, 2, 0)
