"""The graphs around the network of an end2end file: from an image to its detections.

They are written in ONNX's text format, and put before and after a decoded network.
Letters: N candidates, P priors, C classes, K detections.
"""

from __future__ import annotations

from typing import Any

from nanodet_d2.runtime.metadata import FIT, ExportMetadata

# The image, as the evaluation's warp makes it with all its bits: each output pixel is between two
# rows and two columns; it takes them by a product with their weights. (ONNX's Resize differs by
# what OpenCV rounds, positions to 1/32 of a pixel, and costs 0.3 AP. Gathering whole rows, turning
# the image and gathering rows again is several times as fast as gathering pixels.)
BEFORE = """
<ir_version: {ir_version}, opset_import: ["" : {opset}]>
before (uint8[rows, columns, 3] image)
    => (float[1, 3, {height}, {width}] data, int64[2] image_size{place})
<int64[1] zero = {{0}}, int64[1] one = {{1}}, int64[1] two = {{2}}>
{{
    whole_shape = Shape (image)
    image_size = Slice (whole_shape, zero, two)
    {fit}
    {y_axis}
    {x_axis}
    flat_form = Constant <value_ints = [0, -1]> ()
    flat = Reshape (image, flat_form)
    y_bytes = Gather <axis = 0> (flat, y_neighbours)
    y_values = Cast <to = 1> (y_bytes)
    y_mixed = MatMul (y_weights, y_values)
    row_form = Constant <value_ints = [{height}, -1, 3]> ()
    by_row = Reshape (y_mixed, row_form)
    turned = Transpose <perm = [1, 2, 0]> (by_row)
    turned_form = Constant <value_ints = [0, -1]> ()
    by_column = Reshape (turned, turned_form)
    x_values = Gather <axis = 0> (by_column, x_neighbours)
    x_mixed = MatMul (x_weights, x_values)
    column_form = Constant <value_ints = [{width}, 3, {height}]> ()
    resized = Reshape (x_mixed, column_form)
    half = Constant <value = float {{0.5}}> ()
    raised = Add (resized, half)
    pixels = Floor (raised)
    order = Constant <value_ints = {order}> ()
    ordered = Gather <axis = 1> (pixels, order)
    mean = Constant <value = float[3, 1] {{{mean}}}> ()
    std = Constant <value = float[3, 1] {{{std}}}> ()
    centred = Sub (ordered, mean)
    normal = Div (centred, std)
    {cover}
    planes = Transpose <perm = [1, 2, 0]> ({normal})
    data = Unsqueeze (planes, zero)
}}
"""

# For one axis of a stretched image: the position i * in / out in 1/32 of a pixel, rounded half to
# even, as the pixel before it and what the next one has of the mixture.
STRETCHED = """
    {n}_in = Slice (image_size, {first}, {last})
    {n}_index = Constant <value_ints = [{indices}]> ()
    {n}_64 = Constant <value_ints = [64]> ()
    {n}_out = Constant <value_ints = [{out}]> ()
    {n}_two_out = Constant <value_ints = [{two_out}]> ()
    {n}_32 = Constant <value_ints = [32]> ()
    {n}_in_64 = Mul ({n}_in, {n}_64)
    {n}_product = Mul ({n}_index, {n}_in_64)
    {n}_raised = Add ({n}_product, {n}_out)
    {n}_upward = Div ({n}_raised, {n}_two_out)
    {n}_remainder = Mod ({n}_raised, {n}_two_out)
    {n}_remainder_bool = Cast <to = 9> ({n}_remainder)
    {n}_tie = Not ({n}_remainder_bool)
    {n}_two = Constant <value_ints = [2]> ()
    {n}_odd = Mod ({n}_upward, {n}_two)
    {n}_odd_bool = Cast <to = 9> ({n}_odd)
    {n}_lowered = And ({n}_tie, {n}_odd_bool)
    {n}_excess = Cast <to = 7> ({n}_lowered)
    {n}_position = Sub ({n}_upward, {n}_excess)
    {n}_low = Div ({n}_position, {n}_32)
    {n}_rest = Mod ({n}_position, {n}_32)
    {n}_real = Cast <to = 1> ({n}_rest)
    {n}_step = Constant <value = float {{0.03125}}> ()
    {n}_share = Mul ({n}_real, {n}_step)
"""

# Where an image that keeps its proportions lies: ``preprocess.fit_of`` in the same float64, rows
# before columns.
FIT_BEFORE = """
    size_64 = Cast <to = 11> (image_size)
    room = Constant <value_ints = [{height}, {width}]> ()
    room_64 = Cast <to = 11> (room)
    two_64 = Cast <to = 11> (two)
    ratios = Div (room_64, size_64)
    ratio = ReduceMin (ratios)
    covered_real = Mul (size_64, ratio)
    covered_whole = Cast <to = 7> (covered_real)
    covered = Max (covered_whole, one)
    covered_64 = Cast <to = 11> (covered)
    factors = Div (covered_64, size_64)
    factor_64 = ReduceMin (factors)
    scaled_size = Mul (size_64, factor_64)
    left_over = Sub (covered_64, scaled_size)
    shift_64 = Div (left_over, two_64)
    factor = Cast <to = 1> (factor_64)
    shift = Cast <to = 1> (shift_64)
"""

# For one axis of it: (i - shift) / factor in 1/32 of a pixel, in the same form; and whether i lies
# in the image.
FITTED = """
    {n}_in = Slice (image_size, {first}, {last})
    {n}_index = Constant <value_ints = [{indices}]> ()
    {n}_index_64 = Cast <to = 11> ({n}_index)
    {n}_shift = Slice (shift_64, {first}, {last})
    {n}_moved = Sub ({n}_index_64, {n}_shift)
    {n}_place = Div ({n}_moved, factor_64)
    {n}_32 = Constant <value_ints = [32]> ()
    {n}_steps = Cast <to = 11> ({n}_32)
    {n}_exact = Mul ({n}_place, {n}_steps)
    {n}_rounded = Round ({n}_exact)
    {n}_position = Div ({n}_rounded, {n}_steps)
    {n}_low_64 = Floor ({n}_position)
    {n}_low = Cast <to = 7> ({n}_low_64)
    {n}_rest = Sub ({n}_position, {n}_low_64)
    {n}_share = Cast <to = 1> ({n}_rest)
    {n}_covered = Slice (covered, {first}, {last})
    {n}_seen_bool = Less ({n}_index, {n}_covered)
    {n}_seen = Cast <to = 1> ({n}_seen_bool)
"""

# The pixels on both sides of a position and their weights, 0 for one beyond an edge, which OpenCV
# takes for black.
NEIGHBOURS = """
    {n}_edge = Sub ({n}_in, one)
    {n}_next = Add ({n}_low, one)
    {n}_whole = Constant <value = float {{1.0}}> ()
    {n}_other = Sub ({n}_whole, {n}_share)
    {n}_low_raised = Max ({n}_low, zero)
    {n}_low_pixel = Min ({n}_low_raised, {n}_edge)
    {n}_low_is_pixel = Equal ({n}_low_pixel, {n}_low)
    {n}_low_mask = Cast <to = 1> ({n}_low_is_pixel)
    {n}_low_masked = Mul ({n}_other, {n}_low_mask)
    {n}_next_raised = Max ({n}_next, zero)
    {n}_next_pixel = Min ({n}_next_raised, {n}_edge)
    {n}_next_is_pixel = Equal ({n}_next_pixel, {n}_next)
    {n}_next_mask = Cast <to = 1> ({n}_next_is_pixel)
    {n}_next_masked = Mul ({n}_share, {n}_next_mask)
    {n}_column_form = Constant <value_ints = [-1, 1]> ()
    {n}_low_column = Reshape ({n}_low_pixel, {n}_column_form)
    {n}_next_column = Reshape ({n}_next_pixel, {n}_column_form)
    {n}_neighbours = Concat <axis = 1> ({n}_low_column, {n}_next_column)
    {n}_form = Constant <value_ints = [-1, 1, 1]> ()
    {n}_low_weight = Reshape ({n}_low_masked, {n}_form)
    {n}_next_weight = Reshape ({n}_next_masked, {n}_form)
    {n}_weights = Concat <axis = 2> ({n}_low_weight, {n}_next_weight)
"""

# What lies beyond a fitted image is the mean colour, 0.
COVER = """
    by_rows = Mul (normal, y_seen)
    x_seen_form = Constant <value_ints = [-1, 1, 1]> ()
    x_seen_column = Reshape (x_seen, x_seen_form)
    visible = Mul (by_rows, x_seen_column)
"""

# Class-wise NMS of every (prior, class) pair above the threshold; boxes in pixels of the image.
AFTER = """
<ir_version: {ir_version}, opset_import: ["" : {opset}]>
after (float[1, P, 4] all_boxes, float[1, P, C] all_scores, int64[2] size{place})
    => (float[K, 4] boxes, float[K] scores, int64[K] classes)
<int64[1] limit = {{{max_detections}}}, float[1] iou = {{{nms_threshold}}},
 float[1] lowest = {{{score_threshold}}}, int64[1] batch_axis = {{0}},
 int64 class_column = {{1}}, int64 prior_column = {{2}}>
{{
    by_class = Transpose <perm = [0, 2, 1]> (all_scores)
    selected = NonMaxSuppression (all_boxes, by_class, limit, iou, lowest)
    candidates = GatherND (by_class, selected)
    number = Shape (candidates)
    kept = Min (number, limit)
    scores, ranking = TopK (candidates, kept)
    best = Gather <axis = 0> (selected, ranking)
    classes = Gather <axis = 1> (best, class_column)
    rows = Gather <axis = 1> (best, prior_column)
    single = Squeeze (all_boxes, batch_axis)
    inside = Gather <axis = 0> (single, rows)
    corners = Constant <value_ints = [1, 0, 1, 0]> ()
    whole = Gather (size, corners)
    real_size = Cast <to = 1> (whole)
    {back}
}}
"""

STRETCHED_BACK = """
    network = Constant <value = float[4] {{{width}, {height}, {width}, {height}}}> ()
    factors = Div (real_size, network)
    boxes = Mul (inside, factors)
"""

FITTED_BACK = """
    edges = Gather <axis = 0> (box_shift, corners)
    moved = Sub (inside, edges)
    scaled = Div (moved, box_factor)
    least = Constant <value = float {{0.0}}> ()
    from_zero = Max (scaled, least)
    boxes = Min (from_zero, real_size)
"""


def add_image_and_nms(decoded: Any, metadata: ExportMetadata) -> Any:
    """Put the image's processing before, and NMS after, a decoded ``onnx.ModelProto``.

    The result's input ``image`` is (H, W, 3) uint8 BGR of any size; its outputs are ``boxes``
    (K, 4), XYXY in pixels of the image, ``scores`` (K,) and ``classes`` (K,) int64, best first.

    Args:
        decoded: of one image, with ``data`` in, and ``boxes`` and ``scores`` out.
        metadata: of the file.
    """
    from onnx import compose, parser

    opset, ir_version = decoded.opset_import[0].version, decoded.ir_version
    versions = dict(opset=opset, ir_version=ir_version)
    before = parser.parse_model(_before(metadata, **versions))
    after = parser.parse_model(_after(metadata, **versions))
    decoded = compose.add_prefix(decoded, "network/")  # keeps its names apart from the others
    joined = compose.merge_models(before, decoded, io_map=[("data", "network/data")])
    ends = {"network/boxes": "all_boxes", "network/scores": "all_scores", "image_size": "size"}
    if metadata.input.resize == FIT:
        ends.update(shift="box_shift", factor="box_factor")
    return compose.merge_models(joined, after, io_map=list(ends.items()))


def _before(metadata: ExportMetadata, **versions: int) -> str:
    x = metadata.input
    fits = x.resize == FIT
    return BEFORE.format(
        place=", float[2] shift, float[1] factor" if fits else "",
        fit=FIT_BEFORE.format(height=x.height, width=x.width) if fits else "",
        y_axis=_axis("y", x.height, "zero", "one", fits=fits),
        x_axis=_axis("x", x.width, "one", "two", fits=fits),
        order=[2, 1, 0] if x.channel_order == "RGB" else [0, 1, 2],
        mean=", ".join(map(repr, x.mean)),
        std=", ".join(map(repr, x.std)),
        height=x.height,
        width=x.width,
        cover=COVER if fits else "",
        normal="visible" if fits else "normal",
        **versions,
    )


def _axis(name: str, out: int, first: str, last: str, *, fits: bool) -> str:
    indices = ", ".join(map(str, range(out)))
    text = (FITTED if fits else STRETCHED) + NEIGHBOURS
    return text.format(n=name, indices=indices, out=out, two_out=2 * out, first=first, last=last)


def _after(metadata: ExportMetadata, **versions: int) -> str:
    x = metadata.input
    fits = x.resize == FIT
    return AFTER.format(
        place=", float[2] box_shift, float[1] box_factor" if fits else "",
        back=(FITTED_BACK if fits else STRETCHED_BACK).format(height=x.height, width=x.width),
        max_detections=metadata.max_detections,
        nms_threshold=metadata.nms_threshold,
        score_threshold=metadata.score_threshold,
        **versions,
    )
