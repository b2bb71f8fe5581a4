"""From detectron2's list of dicts to batches on the model's device.

A batch is put together in host memory and goes over in one copy per tensor, which nothing waits
for.
Letters: N images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.structures import Boxes, ImageList
from torch import Tensor

from nanodet_d2.modeling.head import GroundTruth


def batch_images(
    batched_inputs: Sequence[dict[str, Any]],
    *,
    mean: Tensor,
    std: Tensor,
    flip_channels: bool,
    divisibility: int,
) -> ImageList:
    """Normalise images and pad them (with the mean colour, right and below) to (N, 3, H, W).

    Args:
        batched_inputs: with ``image`` (3, H, W), uint8 or float.
        mean, std: (3, 1, 1), on the device where the batch is wanted.
        flip_channels: reverse the order of the channels before that.
        divisibility: of the batch's height and width.

    Raises:
        ValueError: for an image of another shape.
    """
    for x in batched_inputs:
        shape = tuple(x["image"].shape)
        if len(shape) != 3 or shape[0] != len(mean):
            raise ValueError(
                f"image {x.get('file_name', '')} has shape {shape}; "
                f"allowed: ({len(mean)}, height, width)"
            )
    images = [x["image"] for x in batched_inputs]
    if len({image.dtype for image in images}) > 1:
        images = [image.float() for image in images]
    sizes = [tuple(image.shape[1:]) for image in images]
    padded = len(set(sizes)) > 1 or any(side % divisibility for side in sizes[0])
    batch = ImageList.from_tensors(images, divisibility).tensor if padded else torch.stack(images)
    pixels = to_device(batch, mean.device)
    if flip_channels:
        pixels = pixels.flip(1)
    pixels = (pixels - mean) / std
    if padded:
        for image, (height, width) in zip(pixels, sizes):
            image[:, height:] = 0
            image[:, :, width:] = 0
    return ImageList(pixels, sizes)


def batch_ground_truth(
    batched_inputs: Sequence[dict[str, Any]], *, num_classes: int, device: torch.device
) -> GroundTruth:
    """The boxes of a batch, padded.

    Args:
        batched_inputs: with ``instances`` (``gt_boxes``, ``gt_classes``) and, if wanted,
            ``ignore_boxes``.

    Raises:
        ValueError: for a class outside ``num_classes``.
    """
    for x in batched_inputs:
        classes = x["instances"].gt_classes
        # Looked at only in host memory, where it costs no synchronisation.
        if classes.device.type == "cpu" and classes.numpy().max(initial=-1) >= num_classes:
            raise ValueError(
                f"image {x.get('file_name', '')} has class {int(classes.max())}; "
                f"allowed by num_classes: 0 to {num_classes - 1}"
            )
    instances = [x["instances"] for x in batched_inputs]
    none = Boxes(instances[0].gt_boxes.tensor.new_zeros(0, 4))
    truth = GroundTruth.from_instances(
        instances, [x.get("ignore_boxes", none) for x in batched_inputs]
    )
    return GroundTruth(*(to_device(x, device) for x in truth))


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """``x`` on a device, without waiting for the copy."""
    if device.type == "cuda" and x.device.type == "cpu":
        x = x.pin_memory()
    return x.to(device, non_blocking=True)
