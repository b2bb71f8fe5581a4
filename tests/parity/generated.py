"""Weights, images and boxes of the golden cases; ``cases/README.md`` states the rule in words.

Each is drawn from a stream of random numbers that its name alone starts, so that a case need not
store them and they do not depend on the order of drawing. NumPy promises never to change the
streams of ``RandomState``.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

NUM_CLASSES = 80
CLASS_BIAS = -4.0  # few detections, as in a trained network
GAIN = 1.8  # variance of a layer's output over that of its input, before the activation
BOX_SIDE = (0.08, 0.7)  # of the image's side


def _stream(name: str) -> np.random.RandomState:
    return np.random.RandomState(zlib.crc32(name.encode()))


def _normal(name: str, shape: Sequence[int]) -> np.ndarray:
    return np.asarray(_stream(name).standard_normal(tuple(shape)), dtype=np.float32)


def _centre_and_spread(name: str, shape: Sequence[int]) -> tuple[float, float]:
    """The parameters of an entry's normal distribution."""
    if name.endswith("running_mean"):
        return 0.0, 0.1
    if name.endswith("bias"):
        return CLASS_BIAS if "cls" in name else 0.0, 0.1
    if len(shape) >= 2:
        return 0.0, math.sqrt(GAIN / math.prod(shape[1:]))
    return 1.0, 0.1  # weights of norms, learnt scales; with draws made positive, variances


def parameter(name: str, shape: Sequence[int]) -> Tensor:
    """One entry of a state dict, by its name in the reference."""
    if name.endswith("num_batches_tracked"):
        return torch.zeros(tuple(shape), dtype=torch.int64)
    draw = _normal(name, shape)
    if name.endswith("running_var"):
        draw = np.abs(draw)
    centre, spread = _centre_and_spread(name, shape)
    return torch.from_numpy(np.asarray(np.float32(centre) + np.float32(spread) * draw))


def state_dict(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """All entries of a state dict, from their names in the reference and their shapes."""
    return {name: parameter(name, shape) for name, shape in shapes.items()}


def images(case: str, shape: Sequence[int]) -> Tensor:
    """The normalised images of a case, (N, 3, H, W)."""
    return torch.from_numpy(_normal(f"input:{case}", shape))


def ground_truth(case: str, index: int, count: int, height: int, width: int) -> Instances:
    """``count`` boxes (XYXY, pixels, inside the image) with classes, of image ``index``."""
    stream = _stream(f"boxes:{case}:{index}")
    image = np.array([width, height])
    sides = stream.uniform(*BOX_SIDE, (count, 2)) * image
    corners = stream.uniform(0, 1, (count, 2)) * (image - sides)
    boxes = np.concatenate([corners, corners + sides], axis=1).astype(np.float32)
    classes = stream.randint(0, NUM_CLASSES, count).astype(np.int64)
    instances = Instances((height, width))
    instances.gt_boxes = Boxes(torch.from_numpy(boxes))
    instances.gt_classes = torch.from_numpy(classes)
    return instances
