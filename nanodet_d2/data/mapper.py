"""From a data set dict to the model's input."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.data.transforms import AugInput, Augmentation, AugmentationList, TransformList
from detectron2.structures import Boxes, BoxMode, Instances

from nanodet_d2.runtime.images import MAX_PIXELS, check_max_pixels

from .cache import ImageCache
from .images import read_image
from .tiling import whole_of
from .warp import RandomWarp, WarpTransform


class DetectionMapper:
    """Read an image, augment it with its boxes and make uint8 tensors.

    Args:
        is_train: make ``instances`` from the annotations, and ``ignore_boxes`` of the crowd ones,
            which are never objects to find: an assigner with ``ignore_iof_thr`` uses them.
        augmentations: detectron2 augmentations, in order.
        image_format: "BGR" or "RGB".
        keep_empty_boxes: keep boxes that the augmentation left without area, as the reference
            does. Each of them takes a prior away from a real object.
        max_pixels: an image file that declares more is refused before it is decoded.
        reduced_jpeg: decode JPEG files at a half, a quarter or an eighth of their size where that
            is still as large as the sample. Faster for large images, at less than a pixel's shift.
            Not for evaluation; of no effect on slices.

    Raises:
        ImageError: when called, for an image that cannot be used; the message names its path.
        ValueError: for a ``max_pixels`` out of range.
    """

    def __init__(
        self,
        *,
        is_train: bool,
        augmentations: Sequence[Augmentation],
        image_format: str = "BGR",
        keep_empty_boxes: bool = False,
        max_pixels: int = MAX_PIXELS,
        reduced_jpeg: bool = False,
    ):
        self.is_train = is_train
        self.augmentations = AugmentationList(list(augmentations))
        self.image_format = image_format
        self.keep_empty_boxes = keep_empty_boxes
        self.max_pixels = check_max_pixels(max_pixels)
        self.reduced_jpeg = reduced_jpeg
        self.cache: ImageCache | None = None

    def with_cache(self, cache: ImageCache) -> DetectionMapper:
        """The same mapper, whose images are kept in a cache that is prepared for them.

        Raises:
            ValueError: with ``reduced_jpeg``, whose images depend on the sample's size.
        """
        if self.reduced_jpeg:
            raise ValueError("an image cache keeps whole images: reduced_jpeg has to be false")
        other = copy.copy(self)
        other.cache = cache
        return other

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the samples.

        Raises:
            ValueError: without an augmentation that sets it.
        """
        sizes = [x.size for x in self.augmentations.augs if hasattr(x, "resized")]
        if not sizes:
            raise ValueError("no augmentation of the mapper sets the size; RandomWarp does")
        return sizes[-1]

    @property
    def makes_one_size(self) -> bool:
        """Whether all samples have the same size, as far as can be told."""
        last = self.augmentations.augs[-1:]
        return any(isinstance(x, RandomWarp) and not x.keep_ratio for x in last)

    def __call__(
        self, dataset_dict: dict[str, Any], size: tuple[int, int] | None = None
    ) -> dict[str, Any]:
        """Input of ``NanoDetPlus`` for one data set dict, which is not changed.

        Args:
            dataset_dict: in detectron2's format.
            size: (height, width) in place of that of the augmentations.
        """
        sample = {k: v for k, v in dataset_dict.items() if k != "annotations"}
        annotations = dataset_dict.get("annotations", [])
        image = self._read(sample, size)
        # Of the image as it was read, which may be a fraction of the file's size.
        scale = np.tile(image.shape[1::-1], 2) / np.tile([sample["width"], sample["height"]], 2)
        inputs = AugInput(image, boxes=_boxes(annotations) * scale)
        augmentations = self.augmentations if size is None else self._resized(size)
        transforms = augmentations(inputs)
        image = channels_first(inputs.image)
        sample["image"] = torch.from_numpy(image)
        if self.is_train:
            self._add_targets(sample, annotations, inputs.boxes, image.shape[1:])
        else:
            _add_warp(sample, transforms)
        return sample

    def _read(self, sample: dict[str, Any], size: tuple[int, int] | None) -> np.ndarray:
        reader = functools.partial(
            read_image,
            image_format=self.image_format,
            max_pixels=self.max_pixels,
            quick=self.is_train,
        )
        if "tile" in sample:
            return self._read_tile(sample, reader)
        if self.cache is not None:
            return self.cache.read(sample, reader)
        return reader(sample, at_least=(size or self.size) if self.reduced_jpeg else None)

    def _read_tile(
        self, sample: dict[str, Any], reader: Callable[[dict[str, Any]], np.ndarray]
    ) -> np.ndarray:
        """A slice of the file's picture, all of which is decoded: a cache saves that."""
        whole = whole_of(sample)
        image = reader(whole) if self.cache is None else self.cache.read(whole, reader)
        x0, y0, x1, y1 = sample["tile"]["box"]
        return image[y0:y1, x0:x1]

    def _resized(self, size: tuple[int, int]) -> AugmentationList:
        return AugmentationList(
            [x.resized(size) if hasattr(x, "resized") else x for x in self.augmentations.augs]
        )

    def _add_targets(
        self,
        sample: dict[str, Any],
        annotations: Sequence[dict[str, Any]],
        xyxy: np.ndarray,
        size: Sequence[int],
    ) -> None:
        boxes = Boxes(torch.as_tensor(xyxy, dtype=torch.float32))
        boxes.clip(size)
        classes = torch.tensor([x["category_id"] for x in annotations], dtype=torch.int64)
        crowd = torch.tensor([bool(x.get("iscrowd", 0)) for x in annotations], dtype=torch.bool)
        kept = ~crowd if self.keep_empty_boxes else ~crowd & boxes.nonempty()
        sample["instances"] = Instances(size, gt_boxes=boxes[kept], gt_classes=classes[kept])
        sample["ignore_boxes"] = boxes[crowd & boxes.nonempty()]


def _add_warp(sample: dict[str, Any], transforms: TransformList) -> None:
    """Tell the model how boxes go back to the image, where the ratio of the sizes is not enough."""
    warps = [x for x in transforms.transforms if isinstance(x, WarpTransform)]
    if len(warps) == len(transforms.transforms) == 1 and warps[0].shifts:
        sample["warp_matrix"] = warps[0].matrix


def channels_first(image: np.ndarray) -> np.ndarray:
    """An image (H, W, C) as (C, H, W) in one piece of memory that may be written to.

    It is a view of an image whose channels lie one after the other already.
    """
    planes = image.transpose(2, 0, 1)
    if image.dtype != np.uint8 or not image.flags.writeable:
        return np.array(planes, order="C")
    if planes.flags.c_contiguous:
        return planes
    out = np.empty(planes.shape, np.uint8)
    for i, plane in enumerate(out):  # NumPy takes several times as long
        cv2.extractChannel(image, i, plane)
    return out


def _boxes(annotations: Sequence[dict[str, Any]]) -> np.ndarray:
    boxes = [
        BoxMode.convert(x["bbox"], x.get("bbox_mode", BoxMode.XYXY_ABS), BoxMode.XYXY_ABS)
        for x in annotations
    ]
    return np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
