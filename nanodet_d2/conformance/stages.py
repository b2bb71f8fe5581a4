"""From a picture to its boxes, stage by stage, by the functions that the runtime has for it.

Letters: P priors, C classes, R reg_max, H, W input, K rows. The stages' arrays:

- ``tensor`` (3, H, W): the network's input for the picture, also of a file with channels last.
- ``raw`` (P, C + 4 * (R + 1)): scores and box logits; of a decoded file (P, C + 4): scores and
  boxes.
- ``candidates``, ``kept`` (K, 6): ``x0, y0, x1, y1, score, class``, best first, in pixels of the
  input; before and after NMS, whose voting moves boxes.
- ``boxes`` (K, 6): the same in pixels of the picture: what is found. An end2end file has no other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nanodet_d2.runtime import decode_numpy
from nanodet_d2.runtime.checks import expected_shapes
from nanodet_d2.runtime.detections import in_image
from nanodet_d2.runtime.metadata import FIT, ExportMetadata
from nanodet_d2.runtime.preprocess import fit_of

STAGES = ("tensor", "raw", "candidates", "kept", "boxes")
ROWS = ("candidates", "kept", "boxes")  # stages of rows
FREE = -1  # in a shape: as many as there are


def stages_of(x: ExportMetadata) -> tuple[str, ...]:
    return ("boxes",) if x.kind == "end2end" else STAGES


def placement(
    x: ExportMetadata, size: Sequence[int]
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Where a picture of (height, width) lies in the input: factors of x and y, and then shifts."""
    if x.input.resize == FIT:
        fit = fit_of(size[0], size[1], x.input.height, x.input.width)
        return (fit.factor, fit.factor), fit.shift
    return (x.input.width / size[1], x.input.height / size[0]), (0.0, 0.0)


def levels(x: ExportMetadata) -> list[tuple[int, int]]:
    """(rows, columns) of each level's cells."""
    return [(-(-x.input.height // s), -(-x.input.width // s)) for s in x.strides]


def level_slices(x: ExportMetadata) -> list[slice]:
    """The priors of each level."""
    counts = [rows * columns for rows, columns in levels(x)]
    ends = np.cumsum(counts).tolist()
    return [slice(end - count, end) for end, count in zip(ends, counts)]


def is_split(x: ExportMetadata) -> bool:
    """Whether each level has outputs of its own, as ncnn's files have."""
    return x.kind == "raw" and len(x.outputs) > 1


def output_shapes(x: ExportMetadata) -> list[list[int]]:
    """Shapes of the outputs, in order, for one picture."""
    if not is_split(x):
        shapes = expected_shapes(x, 1, (x.input.height, x.input.width))
        free = x.kind == "end2end"
        return [[FREE if free and i == 0 else n for i, n in enumerate(shape)] for shape in shapes]
    sides = 4 * (x.reg_max + 1)
    scores = [[len(x.class_names), rows, columns] for rows, columns in levels(x)]
    return scores + [[rows, columns, sides] for rows, columns in levels(x)]


def join(outputs: Mapping[str, np.ndarray], x: ExportMetadata) -> np.ndarray:
    """The stage ``raw`` of a file's outputs, in shapes as :func:`output_shapes`."""
    if x.kind == "decoded":
        boxes, scores = (outputs[name][0] for name in x.outputs)
        return np.concatenate([scores, boxes], axis=1)
    if not is_split(x):
        return outputs[x.outputs[0]][0]
    half = len(x.strides)
    return np.concatenate(
        [
            np.concatenate(
                [
                    outputs[scores].reshape(len(x.class_names), -1).T,
                    outputs[logits].reshape(-1, 4 * (x.reg_max + 1)),
                ],
                axis=1,
            )
            for scores, logits in zip(x.outputs[:half], x.outputs[half:])
        ]
    )


def split(raw: np.ndarray, x: ExportMetadata) -> dict[str, np.ndarray]:
    """The outputs by name of the stage ``raw``; what :func:`join` takes."""
    classes = len(x.class_names)
    if x.kind == "decoded":
        parts = [raw[:, classes:], raw[:, :classes]]
    elif not is_split(x):
        parts = [raw]
    else:
        parts = [raw[some, :classes].T for some in level_slices(x)]
        parts += [raw[some, classes:] for some in level_slices(x)]
    shapes = output_shapes(x)
    return {name: part.reshape(shape) for name, part, shape in zip(x.outputs, parts, shapes)}


def decode(raw: np.ndarray, x: ExportMetadata) -> np.ndarray:
    """Scores and boxes (P, C + 4) of the stage ``raw``."""
    if x.kind == "decoded":
        return raw
    classes, height, width = len(x.class_names), x.input.height, x.input.width
    priors = decode_numpy.make_priors(height, width, x.strides, x.prior_offset)
    boxes = decode_numpy.decode_boxes(raw[:, classes:], priors, height, width)
    return np.concatenate([raw[:, :classes], boxes], axis=1)


def gather(decoded: np.ndarray, x: ExportMetadata) -> np.ndarray:
    """The stage ``candidates`` of scores and boxes (P, C + 4)."""
    classes = len(x.class_names)
    found = decode_numpy.candidates(decoded[:, :classes], decoded[:, classes:], x.score_threshold)
    return rows_of(*found)


def suppress(rows: np.ndarray, x: ExportMetadata) -> np.ndarray:
    """The stage ``kept`` of candidates."""
    kept = decode_numpy.suppress(rows[:, :4], rows[:, 5], x.nms_threshold, x.max_detections)
    return vote(rows, kept, x)


def vote(rows: np.ndarray, kept: list[int], x: ExportMetadata) -> np.ndarray:
    """The candidates that are kept, moved by the others where the contract says so."""
    found = rows[kept]
    if x.vote_above is not None:
        columns = (rows[:, :4], rows[:, 4], rows[:, 5])
        limits = (x.nms_threshold, x.vote_above, x.vote_power)
        is_full = len(kept) == x.max_detections
        found[:, :4] = decode_numpy.vote(*columns, kept, *limits, is_full)
    return found


def scale(rows: np.ndarray, x: ExportMetadata, size: Sequence[int]) -> np.ndarray:
    """The stage ``boxes``, in a picture of (height, width), of what NMS kept."""
    found = in_image(
        *(rows[:, :4], rows[:, 4], rows[:, 5]),
        class_names=x.class_names,
        image_size=size,
        input_size=(x.input.height, x.input.width),
        resize=x.input.resize,
    )
    return rows_of(found.xyxy, found.confidence, found.class_id)


def rows_of(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """(K, 6) float32 of boxes (K, 4), scores (K,) and classes (K,)."""
    return np.column_stack([boxes, scores, classes]).astype(np.float32)
