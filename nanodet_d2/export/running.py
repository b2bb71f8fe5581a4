"""Runs exported files by their own engines, image by image beside what PyTorch computes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from detectron2.structures import Instances

from nanodet_d2.runtime import Detector
from nanodet_d2.runtime.metadata import ExportMetadata

from .expected import Expected


class Mismatch(ValueError):
    """An exported file does not compute what PyTorch does."""

    is_finding = True  # and no wrong request, for the command's exit code


@dataclasses.dataclass(frozen=True)
class Difference:
    """The largest difference of an output over all images, and what is allowed.

    Attributes:
        value: of detections, how many are on one side only.
        compared: of detections, how many there were to compare; None for tensors.
    """

    output: str
    value: float
    allowed: float
    compared: int | None = None


@dataclasses.dataclass(frozen=True)
class Ran:
    """What a file gives for one image.

    Attributes:
        metadata: the file's, of the size that it was run at.
        reference: what PyTorch computes; ``index`` is the image's number there.
        outputs: by name, of a batch of this image alone; of an end2end file as they are.
        found: detections with a score above the reference's threshold.
        where: the image, in words.
    """

    metadata: ExportMetadata
    reference: Expected
    index: int
    outputs: dict[str, np.ndarray]
    found: Instances
    where: str


def run_beside(path: Path, references: Sequence[Expected]) -> Iterator[Ran]:
    """Run a file on the images of all references.

    Args:
        references: the first is of the size that the file is meant for, and its images go in one by
            one; those of others, at other sizes of a dynamic file, as one batch each.
    """
    for number, reference in enumerate(references):
        x = reference.metadata.input
        threshold = reference.score_threshold
        detector = Detector(path, input_size=(x.height, x.width), score_thresh=threshold)
        place = f" at {x.height} x {x.width}" if number else ""
        step = len(reference.images) if number else 1
        for start in range(0, len(reference.images), step):
            images = list(reference.images[start : start + step])
            outputs = detector.run(detector.prepare(images))
            for i, found in enumerate(detector(images)):
                single = outputs if step == 1 else {k: v[i : i + 1] for k, v in outputs.items()}
                where = f"image {start + i}{place}"
                found = found.to_instances()
                yield Ran(detector.metadata, reference, start + i, single, found, where)
