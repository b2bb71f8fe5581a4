"""Augmentations of several images: mosaic, MixUp and copy-paste, on samples of the mapper.

A mixer is called with what makes its first sample, what makes another one, and the size wanted.
Samples hold ``image`` (3, H, W) uint8, ``instances`` and ``ignore_boxes`` in XYXY pixels of it.
"""

from __future__ import annotations

from typing import Any, Callable

import numpy as np
import torch
from detectron2.structures import Boxes, Instances, pairwise_ioa
from torch import Tensor

from .checks import require_number

Size = tuple[int, int]  # height, width
Make = Callable[[Size], dict[str, Any]]


class Mixer:
    """What all mixers share.

    Args:
        probability: of being applied to a sample.

    Raises:
        ValueError: for a probability outside 0 to 1.
    """

    def __init__(self, probability: float):
        require_number(f"{type(self).__name__} probability", probability, 0, 1)
        self.probability = probability

    def __call__(self, make: Make, other: Make, size: Size) -> dict[str, Any]:
        """A sample of ``size``, mixed or as it comes."""
        if np.random.random() >= self.probability:
            return make(size)
        return self.mix(make, other, size)

    def mix(self, make: Make, other: Make, size: Size) -> dict[str, Any]:
        raise NotImplementedError


class Mosaic(Mixer):
    """Four images around a random point (Bochkovskiy et al. 2020, "YOLOv4", section 3.3).

    Each is warped once, into its own tile.

    Args:
        probability: of being applied to a sample.
        center: the point lies between this share of each side and the same from the other end.

    Raises:
        ValueError: for a ``center`` that is not above 0 and at most 0.5.
    """

    def __init__(self, probability: float = 1.0, center: float = 0.25):
        super().__init__(probability)
        require_number("Mosaic center", center, 0, 0.5, above_low=True)
        self.center = center

    def mix(self, make: Make, other: Make, size: Size) -> dict[str, Any]:
        cut = [max(1, round(np.random.uniform(self.center, 1 - self.center) * x)) for x in size]
        (cut_y, cut_x), (height, width) = cut, size
        result: dict[str, Any] = {}
        image = torch.zeros(3, height, width, dtype=torch.uint8)
        instances, ignored = [], []
        for i, (top, bottom) in enumerate(((0, cut_y), (cut_y, height))):
            for j, (left, right) in enumerate(((0, cut_x), (cut_x, width))):
                tile = (other if i or j else make)((bottom - top, right - left))
                result = result or tile
                image[:, top:bottom, left:right] = tile["image"]
                shift = torch.tensor([left, top, left, top], dtype=torch.float32)
                instances.append(_moved(tile["instances"], shift, size))
                ignored.append(tile["ignore_boxes"].tensor + shift)
        return {
            **result,
            "image": image,
            "instances": Instances.cat(instances),
            "ignore_boxes": Boxes(torch.cat(ignored)),
        }


class MixUp(Mixer):
    """Two images on top of each other, with the boxes of both (Zhang et al. 2018).

    Args:
        probability: of being applied to a sample.
        alpha: the shares of the images are drawn from Beta(alpha, alpha).

    Raises:
        ValueError: for an ``alpha`` that is not positive.
    """

    def __init__(self, probability: float = 1.0, alpha: float = 8.0):
        super().__init__(probability)
        require_number("MixUp alpha", alpha, 0, above_low=True)
        self.alpha = alpha

    def mix(self, make: Make, other: Make, size: Size) -> dict[str, Any]:
        first, second = make(size), other(size)
        share = np.random.beta(self.alpha, self.alpha)
        image = torch.lerp(second["image"].float(), first["image"].float(), share)
        return _joined(first, second, image.round().to(torch.uint8), second["instances"])


class CopyPaste(Mixer):
    """Boxes of another image pasted onto this one, where they hide little (Ghiasi et al. 2021).

    Without masks, the whole rectangle is pasted.

    Args:
        probability: of being applied to a sample.
        max_objects: pasted at most.
        max_hidden: share of an object's area that may be hidden by a pasted one.

    Raises:
        ValueError: for a ``max_objects`` below 1, or a ``max_hidden`` outside 0 to 1.
    """

    def __init__(self, probability: float = 1.0, max_objects: int = 5, max_hidden: float = 0.3):
        super().__init__(probability)
        require_number("CopyPaste max_objects", max_objects, 1, whole=True)
        require_number("CopyPaste max_hidden", max_hidden, 0, 1)
        self.max_objects = max_objects
        self.max_hidden = max_hidden

    def mix(self, make: Make, other: Make, size: Size) -> dict[str, Any]:
        first, second = make(size), other(size)
        image = first["image"].clone()
        here, there = first["instances"].gt_boxes, second["instances"].gt_boxes
        pasted: list[int] = []
        for i in np.random.permutation(len(there)).tolist():
            if len(pasted) == self.max_objects:
                break
            candidate = Boxes(there.tensor[i : i + 1])
            present = Boxes.cat([here, Boxes(there.tensor[pasted])])
            if len(present) and float(pairwise_ioa(candidate, present).max()) > self.max_hidden:
                continue
            _copy_box(second["image"], image, there.tensor[i])
            pasted.append(i)
        return _joined(first, second, image, second["instances"][pasted], ignored=False)


def _copy_box(source: Tensor, target: Tensor, box: Tensor) -> None:
    left, top = (int(v) for v in box[:2].floor())
    right, bottom = (int(v) for v in box[2:].ceil())
    target[:, top:bottom, left:right] = source[:, top:bottom, left:right]


def _joined(
    first: dict[str, Any],
    second: dict[str, Any],
    image: Tensor,
    added: Instances,
    *,
    ignored: bool = True,
) -> dict[str, Any]:
    """The first sample with another image and more boxes; ``ignored`` also those of the second."""
    boxes = [first["ignore_boxes"], *([second["ignore_boxes"]] if ignored else [])]
    return {
        **first,
        "image": image,
        "instances": Instances.cat([first["instances"], added]),
        "ignore_boxes": Boxes.cat(boxes),
    }


def _moved(instances: Instances, shift: Tensor, size: Size) -> Instances:
    return Instances(
        size,
        gt_boxes=Boxes(instances.gt_boxes.tensor + shift),
        gt_classes=instances.gt_classes,
    )
