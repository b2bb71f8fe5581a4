"""Properties that hold for all inputs: box coding, assignment, warp and boxes, readers."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from nanodet_d2.data import RandomWarp  # noqa: E402
from nanodet_d2.data.color import adjust_color  # noqa: E402
from nanodet_d2.data.readers.coco import read_coco_json  # noqa: E402
from nanodet_d2.data.readers.voc import read_voc  # noqa: E402
from nanodet_d2.data.readers.yolo import read_yolo  # noqa: E402
from nanodet_d2.data.records import categories_by_id, to_records  # noqa: E402
from nanodet_d2.data.warp import WarpTransform, warp_matrix  # noqa: E402
from nanodet_d2.modeling.head import DynamicSoftLabelAssigner  # noqa: E402
from nanodet_d2.modeling.head.box_coding import (  # noqa: E402
    DISTANCE_MARGIN,
    decode_boxes,
    encode_distances,
    expected_distances,
    grid_priors,
)
from tests import oracle  # noqa: E402
from tests.data.broken_files import encoded, noise  # noqa: E402
from tests.data.formats import write_voc, write_yolo  # noqa: E402
from tests.modeling.test_assigner import make_head, to_ground_truth  # noqa: E402

# The same examples every time: a failure is a change of the code, not of the machine's load.
few = settings(
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow],
)
many = settings(few, max_examples=150)

REG_MAX = 7
PRIORS = grid_priors([(8, 8), (4, 4), (2, 2), (1, 1)], [8, 16, 32, 64], torch.device("cpu"))
SIZE = 64


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False, allow_subnormal=False)


# Box coding


@many
@given(
    st.sampled_from([8, 16, 32, 64]),
    st.tuples(numbers(0, 500), numbers(0, 500)),
    st.lists(numbers(0, REG_MAX - DISTANCE_MARGIN), min_size=4, max_size=4),
)
def test_encoding_undoes_decoding(stride, center, distances):
    priors = torch.tensor([[*center, stride]])
    boxes = decode_boxes(priors, torch.tensor([distances]))
    assert (boxes[0, 2:] >= boxes[0, :2]).all()
    again = encode_distances(priors, boxes, REG_MAX)
    torch.testing.assert_close(again, torch.tensor([distances]), rtol=1e-5, atol=1e-4)


@many
@given(st.lists(numbers(-1e4, 1e4), min_size=4, max_size=4))
def test_encoded_distances_are_within_the_bins(box):
    distances = encode_distances(PRIORS, torch.tensor(box).expand(len(PRIORS), 4), REG_MAX)
    assert float(distances.min()) >= 0 and float(distances.max()) < REG_MAX - DISTANCE_MARGIN + 1e-6


@many
@given(st.lists(numbers(-80, 80), min_size=REG_MAX + 1, max_size=REG_MAX + 1), numbers(-1000, 1000))
def test_expected_distances_are_means_that_ignore_a_shift(logits, shift):
    row = torch.tensor(logits).repeat(4)
    bins = torch.arange(REG_MAX + 1.0)
    mean = expected_distances(row, bins)
    assert float(mean.min()) >= 0 and float(mean.max()) <= REG_MAX + 1e-5
    expected = (torch.tensor(logits).double().softmax(0) * bins).sum().float()
    torch.testing.assert_close(mean, expected.expand(4), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(expected_distances(row + shift, bins), mean, rtol=1e-2, atol=1e-2)


# Assignment


@st.composite
def truths(draw) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Boxes of one to three images: on the grid and off it, thin, equal, reaching outside."""
    images = []
    for _ in range(draw(st.integers(1, 3))):
        low = st.one_of(st.integers(-8, SIZE).map(float), numbers(-8, SIZE))
        side = st.one_of(st.sampled_from([1.0, 8.0, 16.0, 64.0]), numbers(0.5, 80))
        boxes = draw(st.lists(st.tuples(low, low, side, side), max_size=6))
        if boxes and draw(st.booleans()):
            boxes.append(boxes[0])
        xywh = torch.tensor(boxes).reshape(-1, 4)
        classes = draw(st.lists(st.integers(0, 4), min_size=len(boxes), max_size=len(boxes)))
        xyxy = torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1)
        images.append((xyxy, torch.tensor(classes, dtype=torch.int64)))
    return images


@few
@given(truths(), st.integers(0, 2**16), st.sampled_from([0.1, 1.0, 4.0]))
def test_assignment_equals_the_oracle(truth, seed, spread):
    generator = torch.Generator().manual_seed(seed)
    raw = spread * torch.randn(len(truth), len(PRIORS), 5 + 32, generator=generator)
    guide = make_head().decode(raw, PRIORS)
    target = DynamicSoftLabelAssigner()(guide.logits, guide.boxes, PRIORS, to_ground_truth(truth))
    for i, (boxes, classes) in enumerate(truth):
        logits, _, decoded = oracle.decode(raw[i], PRIORS, 5)
        labels, scores, owner = oracle.assign(logits, decoded, PRIORS, boxes, classes)
        assert torch.equal(target.labels[i], labels)
        torch.testing.assert_close(target.scores[i], scores)
        positive = owner >= 0
        assert torch.equal(target.boxes[i][positive], boxes[owner[positive]])
        assert set(positive.nonzero().flatten().tolist()) <= set(target.slots[i].tolist())
        assert len(target.slots[i].unique()) == len(target.slots[i])


# Warp and boxes

warps = st.fixed_dictionaries(
    {
        "scale": numbers(0.3, 3),
        "stretch": st.tuples(numbers(0.5, 2), numbers(0.5, 2)),
        "rotation": numbers(-180, 180),
        "shear": st.tuples(numbers(-40, 40), numbers(-40, 40)),
        "flip": st.booleans(),
        "translate": st.tuples(numbers(0, 1), numbers(0, 1)),
    }
)


@many
@given(warps, st.tuples(st.integers(8, 90), st.integers(8, 90)), st.booleans())
def test_pixels_stay_in_their_boxes(draws, size, keep_ratio):
    height, width = size
    image = np.zeros((height, width, 3), np.uint8)
    box = np.array([width // 4, height // 4, width // 4 + width // 2, height // 4 + height // 2])
    image[box[1] : box[3], box[0] : box[2]] = 255
    warp = WarpTransform(warp_matrix(size, (64, 48), keep_ratio=keep_ratio, **draws), 64, 48)
    inside = warp.apply_box(box[None] - [0, 0, 1, 1])[0]  # of the pixels' indices
    y, x = np.nonzero(warp.apply_image(image)[..., 0] > 127)
    # Half of a source pixel's reach, which the enlargement spreads, and a fraction of OpenCV's.
    slack = 1 + 0.5 * np.abs(warp.matrix[:2, :2]).sum()
    if len(x):
        assert x.min() >= inside[0] - slack and x.max() <= inside[2] + slack
        assert y.min() >= inside[1] - slack and y.max() <= inside[3] + slack
    points = np.array([[0.0, 0], [width, 0], [width / 3, height], [width, height]])
    back = WarpTransform(np.linalg.inv(warp.matrix), height, width)
    np.testing.assert_allclose(back.apply_coords(warp.apply_coords(points)), points, atol=1e-6)


@many
@given(warps, numbers(0, 0.01), st.integers(0, 2**31))
def test_random_warps_are_finite_within_the_allowed_ranges(draws, perspective, seed):
    np.random.seed(seed)
    warp = RandomWarp(
        (32, 48),
        scale=sorted((draws["scale"], 1.0)),
        stretch=[sorted((x, 1.0)) for x in draws["stretch"]],
        rotation=abs(draws["rotation"]),
        shear=abs(draws["shear"][0]),
        translate=draws["translate"][0],
        perspective=perspective,
        flip=0.5,
    )
    made = warp.get_transform(np.zeros((60, 80, 3), np.uint8))
    assert np.isfinite(made.matrix).all()
    assert made.apply_image(np.zeros((60, 80, 3), np.uint8)).shape == (32, 48, 3)


@many
@given(numbers(-1, 1), numbers(0, 3), numbers(0, 3), st.integers(0, 2**16))
def test_colour_is_within_a_grey_level_of_its_formula(brightness, contrast, saturation, seed):
    image = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    pixels = (image / 255 + brightness) * contrast
    value = pixels.max(axis=2, keepdims=True)
    expected = np.clip((value + saturation * (pixels - value)) * 255, 0, 255)
    found = adjust_color(image, brightness, contrast, saturation)
    assert found.dtype == np.uint8 and np.abs(found - expected).max() <= 1


# Readers


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(3):
        (folder / f"{i}.png").write_bytes(encoded(noise(i), "PNG"))
    return folder


@st.composite
def contents(draw) -> dict:
    """Three images of 96 px, boxes anywhere, ids in any order, names of any letters."""
    letters = st.characters(codec="utf-8", exclude_categories=("C", "Z"))
    names = draw(st.lists(st.text(letters, min_size=1, max_size=8), min_size=1, unique=True))
    ids = draw(st.permutations(range(1, len(names) + 1)))
    side = st.one_of(numbers(1.01, 96), numbers(0, 3), numbers(-5, 200))
    low = numbers(-20, 120)
    boxes = draw(st.lists(st.tuples(low, low, side, side), max_size=8))
    return {
        "images": [
            {"id": 7 * i, "file_name": f"{i}.png", "width": 96, "height": 96} for i in range(3)
        ],
        "annotations": [
            {
                "id": i,
                "image_id": 7 * draw(st.integers(0, 2)),
                "category_id": draw(st.sampled_from(ids)),
                "bbox": [float(v) for v in box],
            }
            for i, box in enumerate(boxes)
        ],
        "categories": [{"id": i, "name": name} for i, name in zip(ids, names)],
    }


def boxes_of(content: dict, pictures: Path) -> list[tuple]:
    """(file, class name, box) of all boxes, sorted."""
    names = categories_by_id(content, "source")
    index = {key: i for i, key in enumerate(names)}
    records = to_records(content, "source", str(pictures), index)
    found = []
    for record in records:
        for x in record["annotations"]:
            x1, y1, x2, y2 = x["bbox"]
            assert 0 <= x1 < x2 <= 96 and 0 <= y1 < y2 <= 96
            found.append((record["file_name"], list(names.values())[x["category_id"]], x["bbox"]))
    return sorted(found)


def with_corners_in_order(content: dict) -> dict:
    """The same with boxes of a negative width or height turned round."""

    def turned(box: list[float]) -> list[float]:
        x, y, w, h = box
        return [min(x, x + w), min(y, y + h), abs(w), abs(h)]

    annotations = [{**x, "bbox": turned(x["bbox"])} for x in content["annotations"]]
    return {**content, "annotations": annotations}


@few
@given(contents())
def test_the_same_boxes_come_out_of_all_formats(pictures, content):
    # Corners that are swapped are put in order, sides below zero are not read; and a rounding of
    # the corners may move a side over the limit of a pixel.
    content["annotations"] = [
        x
        for x in content["annotations"]
        if all(v >= 0 and abs(v - 1) > 1e-9 for v in x["bbox"][2:])
    ]
    expected = boxes_of(content, pictures)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_voc(content, folder / "voc")
        classes = [x["name"] for x in content["categories"]]
        voc = boxes_of(read_voc(str(folder / "voc"), str(pictures), classes), pictures)
        in_order = boxes_of(with_corners_in_order(content), pictures)  # as VOC's reader puts them
        assert len(voc) == len(in_order)
        for (file, kind, box), other in zip(voc, in_order):
            assert (file, kind) == other[:2] and box == pytest.approx(other[2], abs=1e-3)
        (folder / "yolo").mkdir()
        (folder / "yolo" / "0.txt").touch()
        classes = write_yolo(content, folder / "yolo")
        yolo = read_yolo(str(folder / "yolo"), str(pictures), classes)
        # Its own rounding is larger: those that are in both are alike.
        assert abs(len(boxes_of(yolo, pictures)) - len(expected)) <= len(content["annotations"])
        assert [x["name"] for x in yolo["categories"]] == classes


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
entries = st.one_of(
    values,
    st.fixed_dictionaries(
        {},
        optional={
            key: values
            for key in ("id", "file_name", "width", "height", "name", "image_id", "bbox", "area")
        },
    ),
)


@many
@given(
    st.one_of(
        values,
        st.fixed_dictionaries(
            {key: st.lists(entries, max_size=3) for key in ("images", "annotations", "categories")}
        ),
    )
)
def test_any_json_is_read_or_refused_in_one_line(pictures, content):
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "any.json"
        path.write_text(json.dumps(content))
        try:
            boxes_of(read_coco_json(str(path)), pictures)
        except (ValueError, FileNotFoundError) as error:
            assert "\n" not in str(error) and ("any.json" in str(error) or "source" in str(error))


@many
@given(contents(), st.lists(st.tuples(st.sampled_from(["bbox", "category_id", "image_id", "area",
       "iscrowd", "id"]), values), max_size=8))  # fmt: skip
def test_any_annotation_costs_only_itself(pictures, content, changes):
    before = len(boxes_of(content, pictures))
    touched = set()
    for i, (key, value) in enumerate(changes):
        if i < len(content["annotations"]):
            content["annotations"][i][key] = value
            touched.add(i)
    assert before - len(touched) <= len(boxes_of(content, pictures)) <= before + len(touched)
    assert all(math.isfinite(v) for x in boxes_of(content, pictures) for v in x[2])
