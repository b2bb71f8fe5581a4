"""Planted mistakes are recognised by name; a right port passes; what is no result is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from nanodet_d2.conformance import check, read_kit, read_result, write_kit
from nanodet_d2.conformance.compare import compare
from nanodet_d2.conformance.stages import STAGES
from nanodet_d2.runtime.backends import backend_of

from .port import Port


@pytest.fixture(scope="module")
def kit(small_models, tmp_path_factory) -> Path:
    """Of few candidates, so that NMS, which all guesses go through, takes little time."""
    folder = tmp_path_factory.mktemp("kit")
    model = small_models.file("torchscript")
    facts = json.loads(backend_of(model).metadata_path(model).read_text())
    facts |= {"score_threshold": 0.12, "max_detections": 25}
    (folder / "metadata.json").write_text(json.dumps(facts))
    return write_kit(model, folder / "small", metadata=folder / "metadata.json")


def judge(kit: Path, result: dict, folder: Path):
    path = folder / "result.json"
    path.write_text(json.dumps(result))
    opened = read_kit(kit)
    return check(opened, read_result(path, opened.metadata, [x.name for x in opened.pictures]))


# To the network


class SwappedChannels(Port):
    def normalised(self, pixels):
        return super().normalised(pixels[:, :, ::-1])


class MeanForDeviation(Port):
    def normalised(self, pixels):
        mean, std = self.contract["input_mean"], self.contract["input_std"]
        return (pixels - np.array(std)) / np.array(mean)


class NotNormalised(Port):
    def normalised(self, pixels):
        return pixels


class ZeroToOne(Port):
    def normalised(self, pixels):
        return pixels / 255


class ZeroToOneThenNormalised(Port):
    def normalised(self, pixels):
        return super().normalised(pixels / 255)


class TimesDeviation(Port):
    def normalised(self, pixels):
        return (pixels - self.contract["input_mean"]) * self.contract["input_std"]


class HalfPixelCentres(Port):
    def positions(self, size, out):
        return [(i + 0.5) * size / out - 0.5 for i in range(out)]

    def beyond(self, line):
        return line


class NearestPixel(Port):
    def positions(self, size, out):
        return [math.floor(i * size / out) for i in range(out)]


class AlignedCorners(Port):
    def positions(self, size, out):
        return [i * (size - 1) / (out - 1) for i in range(out)]


class AllBitsOfPositions(Port):
    def positions(self, size, out):
        return [i * size / out for i in range(out)]


class RepeatedEdge(Port):
    def beyond(self, line):
        return line


class Letterboxed(Port):
    def resized(self, image):
        factor = min(self.height / image.shape[0], self.width / image.shape[1])
        inner = cv2.resize(image, (round(image.shape[1] * factor), round(image.shape[0] * factor)))
        y, x = (self.height - inner.shape[0]) // 2, (self.width - inner.shape[1]) // 2
        down, right = self.height - inner.shape[0] - y, self.width - inner.shape[1] - x
        return cv2.copyMakeBorder(
            inner, y, down, x, right, cv2.BORDER_CONSTANT, value=(114, 114, 114)
        )


class ChannelsLast(Port):
    def layout(self, pixels):
        return np.ascontiguousarray(pixels)


class ColumnsFirst(Port):
    def layout(self, pixels):
        return super().layout(pixels).transpose(0, 2, 1)


# From the network


class CoarsestFirst(Port):
    def raw(self, raw):
        cells = [math.ceil(self.height / s) * math.ceil(self.width / s)
                 for s in self.contract["strides"]]  # fmt: skip
        parts = np.split(raw, np.cumsum(cells)[:-1])
        return np.concatenate(parts[::-1])


class ColumnByColumn(Port):
    def raw(self, raw):
        parts, start = [], 0
        for stride in self.contract["strides"]:
            rows, columns = math.ceil(self.height / stride), math.ceil(self.width / stride)
            level = raw[start : start + rows * columns].reshape(rows, columns, -1)
            parts += [level[:, column] for column in range(columns)]
            start += rows * columns
        return np.concatenate(parts)


class SigmoidTwice(Port):
    def raw(self, raw):
        scores = 1 / (1 + np.exp(-raw[:, : self.classes]))
        return np.concatenate([scores, raw[:, self.classes :]], axis=1)


class NoSigmoid(Port):
    def raw(self, raw):
        p = raw[:, : self.classes].clip(1e-12)
        return np.concatenate([np.log(p / (1 - p)), raw[:, self.classes :]], axis=1)


class BoxesFirst(Port):
    def raw(self, raw):
        return np.concatenate([raw[:, self.classes :], raw[:, : self.classes]], axis=1)


class HalfACell(Port):
    def prior(self, column, row, stride):
        return (column + 0.5) * stride, (row + 0.5) * stride


class ExchangedPriors(Port):
    def prior(self, column, row, stride):
        return row * stride, column * stride


class NoStride(Port):
    def distance(self, logits, stride):
        return super().distance(logits, 1)


class LikeliestBin(Port):
    def distance(self, logits, stride):
        return float(np.argmax(logits)) * stride


class BinsFromOne(Port):
    def distance(self, logits, stride):
        return super().distance(logits, stride) + stride


class NoSoftmax(Port):
    def distance(self, logits, stride):
        return sum(i * logit for i, logit in enumerate(logits)) * stride


class TopFirst(Port):
    def sides(self, distances):
        top, left, lower, right = distances
        return [left, top, right, lower]


class NotClipped(Port):
    def clipped(self, value, limit):
        return value


class OtherThreshold(Port):
    def threshold(self):
        return 0.15


class BestClassOnly(Port):
    def of_prior(self, box, scores):
        index = int(np.argmax(scores))
        return [[*box, scores[index], index]] if scores[index] > self.threshold() else []


class AcrossClasses(Port):
    def rivals(self, a, b):
        return self.iou(a, b) > self.contract["nms_threshold"]


class NoNms(Port):
    def rivals(self, a, b):
        return False


class OtherIou(Port):
    def rivals(self, a, b):
        return a[5] == b[5] and self.iou(a, b) > 0.3


class OtherLimit(Port):
    def kept(self, candidates):
        return super().kept(candidates)[:8]


class AllSuppress(Port):
    def kept(self, candidates):
        free = [
            one for i, one in enumerate(candidates)
            if not any(self.rivals(one, other) for other in candidates[:i])
        ]  # fmt: skip
        return free[: self.contract["max_detections"]]


class NotScaled(Port):
    def factors(self, height, width):
        return 1, 1


class ExchangedFactors(Port):
    def factors(self, height, width):
        return super().factors(height, width)[::-1]


class Xywh(Port):
    def written(self, stage, value):
        if stage != "boxes":
            return value
        return [[x0, y0, x1 - x0, y1 - y0, *rest] for x0, y0, x1, y1, *rest in value]


class Yxyx(Port):
    def written(self, stage, value):
        if stage != "boxes":
            return value
        return [[y0, x0, y1, x1, *rest] for x0, y0, x1, y1, *rest in value]


class ClassesFromOne(Port):
    def written(self, stage, value):
        return [[*row[:5], row[5] + 1] for row in value] if stage == "boxes" else value


class NoVoting(Port):
    def mean(self, votes):
        return votes[0]


class EqualVotes(Port):
    def weight(self, one):
        return 1.0


class ScoresAsWeights(Port):
    def weight(self, one):
        return one[4]


MISTAKES = {
    SwappedChannels: "input: channels swapped",
    MeanForDeviation: "input: normalised with mean and deviation exchanged",
    NotNormalised: "input: not normalised",
    ZeroToOne: "input: scaled to 0..1, not normalised",
    ZeroToOneThenNormalised: "input: scaled to 0..1 before normalisation",
    TimesDeviation: "input: multiplied by the deviation",
    HalfPixelCentres: "input: resized with half-pixel centres",
    NearestPixel: "input: resized to the nearest pixel",
    AlignedCorners: "input: resized with aligned corners",
    AllBitsOfPositions: "input: positions not rounded to 1/32 pixel",
    RepeatedEdge: "input: the edge repeated beyond it, not black",
    Letterboxed: "input: letterboxed in place of stretched (in the middle, border 114)",
    ChannelsLast: "layout: HWC in place of CHW",
    ColumnsFirst: "layout: CWH in place of CHW, columns before rows",
    CoarsestFirst: "raw: levels in another order (coarsest first)",
    ColumnByColumn: "raw: priors column by column, not row by row",
    SigmoidTwice: "raw: sigmoid applied twice",
    NoSigmoid: "raw: sigmoid not applied",
    BoxesFirst: "raw: box columns before scores",
    HalfACell: "decode: priors shifted by half a cell",
    ExchangedPriors: "decode: x and y of the priors exchanged",
    NoStride: "decode: stride not applied to the distances",
    LikeliestBin: "decode: reg_max bins not applied, the most likely one taken",
    BinsFromOne: "decode: reg_max bins counted from 1",
    NoSoftmax: "decode: softmax not applied to the box logits",
    TopFirst: "decode: sides in another order (top, left, lower, right)",
    NotClipped: "decode: boxes not clipped to the input",
    OtherThreshold: "threshold: scores from about 0.15",
    BestClassOnly: "classes: only the best one of each prior",
    AcrossClasses: "NMS: across classes",
    NoNms: "NMS: none, the best 25 taken",
    OtherIou: "NMS: other IoU threshold, about 0.3 in place of 0.6",
    OtherLimit: "NMS: other limit, 8 in place of 25",
    AllSuppress: "NMS: boxes that are not kept suppress, too",
    NotScaled: "boxes: in input pixels, not in image pixels",
    ExchangedFactors: "boxes: scaled with height and width exchanged",
    Xywh: "boxes: XYWH in place of XYXY",
    Yxyx: "boxes: YXYX in place of XYXY",
    ClassesFromOne: "classes: shifted by one, one too high",
}
INPUT = [port for port, words in MISTAKES.items() if words.startswith(("input:", "layout:"))]


def is_named(report, port) -> bool:
    """Whether the finding, or another that looks the same, begins so."""
    return any(words.startswith(MISTAKES[port]) for words in (report.finding, *report.also))


@pytest.mark.parametrize("port", MISTAKES, ids=lambda x: x.__name__)
def test_a_planted_mistake_is_named(kit, tmp_path, port):
    report = judge(kit, port(kit).result(STAGES), tmp_path)
    assert not report.same and report.finding.startswith(MISTAKES[port]), report.text()
    assert report.sentence.startswith(f"{report.finding} ({report.stage} of picture_")
    assert "\n" not in report.sentence


@pytest.fixture(scope="module")
def voting_kit(small_models, tmp_path_factory) -> Path:
    """A kit of the same model, whose NMS votes."""
    folder = tmp_path_factory.mktemp("voting_kit")
    model = small_models.file("torchscript")
    facts = json.loads(backend_of(model).metadata_path(model).read_text())
    facts |= {"score_threshold": 0.12, "max_detections": 25, "nms": "voting"}
    (folder / "metadata.json").write_text(json.dumps(facts))
    return write_kit(model, folder / "small", metadata=folder / "metadata.json")


VOTING_MISTAKES = {
    NoVoting: "NMS: no voting",
    EqualVotes: "NMS: votes not weighted by their scores",
    ScoresAsWeights: "NMS: votes weighted by their scores, not by a power of them",
    AcrossClasses: "NMS: across classes",
}


@pytest.mark.parametrize("port", VOTING_MISTAKES, ids=lambda x: x.__name__)
def test_a_mistake_in_voting_is_named(voting_kit, tmp_path, port):
    report = judge(voting_kit, port(voting_kit).result(STAGES), tmp_path)
    assert report.stage == "kept" and report.finding.startswith(VOTING_MISTAKES[port])
    assert tuple(report.checked) == STAGES[:3]


def test_a_port_that_votes_passes_where_the_contract_says_so_alone(kit, voting_kit, tmp_path):
    assert judge(voting_kit, Port(voting_kit).result(STAGES), tmp_path).same
    report = judge(kit, Port(voting_kit).result(STAGES), tmp_path)
    assert report.finding == "NMS: voting, where the contract has none"
    moved = [
        not np.array_equal(a.stages["kept"], b.stages["kept"])
        for a, b in zip(read_kit(kit).pictures, read_kit(voting_kit).pictures)
    ]
    assert any(moved)


@pytest.mark.slow
@pytest.mark.parametrize("port", [x for x in MISTAKES if x not in INPUT], ids=lambda x: x.__name__)
def test_it_is_named_where_a_port_has_boxes_alone(kit, tmp_path, port):
    report = judge(kit, port(kit).result(("boxes",)), tmp_path)
    assert report.stage == "boxes" and is_named(report, port), report.text()


def test_one_that_shows_in_the_boxes_alone_is_named(kit, tmp_path):
    report = judge(kit, HalfACell(kit).result(("tensor", "boxes")), tmp_path)
    assert report.finding == MISTAKES[HalfACell] and list(report.checked) == ["tensor"]


@pytest.mark.parametrize("stages", [STAGES, ("tensor",), ("boxes",), ("raw", "kept")])
def test_a_right_port_passes(kit, tmp_path, stages):
    report = judge(kit, Port(kit).result(stages), tmp_path)
    assert report.same and tuple(report.checked) == stages and not report.sentence, report.text()


def test_of_two_mistakes_that_of_the_first_stage_is_named(kit, tmp_path):
    class Both(NoStride, SwappedChannels, ClassesFromOne):
        pass

    assert judge(kit, Both(kit).result(STAGES), tmp_path).finding == MISTAKES[SwappedChannels]
    report = judge(kit, Both(kit).result(STAGES[1:]), tmp_path)
    assert report.stage == "candidates" and list(report.checked) == ["raw"]
    assert report.finding == MISTAKES[NoStride]


def test_two_on_the_way_to_the_tensor_are_both_named(kit, tmp_path):
    class Both(HalfPixelCentres, SwappedChannels, ChannelsLast):
        def layout(self, pixels):
            return Port.layout(self, pixels)

    report = judge(kit, Both(kit).result(("tensor",)), tmp_path)
    assert report.finding == f"{MISTAKES[HalfPixelCentres]}; and {MISTAKES[SwappedChannels]}"


def test_what_is_not_known_is_told_with_figures(kit, tmp_path):
    class OddScore(Port):
        def raw(self, raw):
            raw = raw.copy()
            raw[7, 2] += 0.25
            return raw

    class OddBoxes(Port):
        def scaled(self, rows, height, width):
            rows = super().scaled(rows, height, width)
            return [[x0 + 3, *rest] for x0, *rest in rows[1:]]

    report = judge(kit, OddScore(kit).result(("tensor", "raw")), tmp_path)
    assert report.stage == report.finding == "raw"
    # 64 pixels are 8 cells of stride 8: the eighth is the last of the first row.
    assert report.sentence.startswith("raw of picture_0.png differs: by up to 0.25, ")
    assert "most at prior 7 (stride 8, row 0, column 7), score of 'triangle'" in report.sentence
    assert "the input is right: another file, or an engine" in report.sentence
    report = judge(kit, OddBoxes(kit).result(("boxes",)), tmp_path)
    count = len(read_kit(kit).pictures[0].stages["boxes"])
    assert report.pictures["picture_0.png"].startswith(f"{count} of {count} missing, ")
    assert "with raw and candidates and kept given, more can be said" in report.sentence


def test_roundings_are_forgiven_and_no_more(kit):
    opened = read_kit(kit)
    x, picture = opened.metadata, opened.pictures[0]

    def same(stage, change):
        expected = picture.stages[stage]
        return compare(stage, expected, change(expected), x, picture.image.shape[:2]).same

    std = np.array(x.input.std)[:, None, None]
    assert same("tensor", lambda t: t + 0.9 / std) and not same("tensor", lambda t: t + 1.2 / std)
    assert same("raw", lambda r: r - 9e-4) and not same("raw", lambda r: r - 1.1e-3)
    pixel, score = np.array([1, 1, 1, 1, 0, 0]), np.array([0, 0, 0, 0, 1, 0])
    for stage in ("candidates", "kept", "boxes"):
        assert same(stage, lambda rows: rows[::-1])  # as sets
        assert same(stage, lambda rows: rows + 0.45 * pixel)
        assert not same(stage, lambda rows: rows + 0.6 * pixel)
        assert same(stage, lambda rows: rows - 9e-4 * score)
        assert not same(stage, lambda rows: rows - 2e-3 * score)
        assert not same(stage, lambda rows: rows[1:])
        assert not same(stage, lambda rows: np.concatenate([rows, rows[:1]]))


def test_what_nms_may_decide_either_way_is_forgiven(kit):
    x = read_kit(kit).metadata  # of IoU 0.6, score 0.12 and 25 detections
    first = np.array([[0, 0, 10, 10, 0.9, 1]], float)

    def same(row, stage="kept"):
        both = np.concatenate([first, [row]])
        forgiven = {compare(stage, a, b, x, (96, 64)).same
                    for a, b in ((first, both), (both, first))}  # fmt: skip
        assert len(forgiven) == 1
        return forgiven.pop()

    assert same([20, 20, 30, 30, 0.1205, 1], "candidates") and same([20, 20, 30, 30, 0.1205, 1])
    assert not same([20, 20, 30, 30, 0.1215, 1])  # clearly above the threshold
    assert same([0, 0, 10, 6.05, 0.5, 1])  # IoU 0.605
    assert not same([0, 0, 10, 6.05, 0.5, 1], "candidates")
    assert not same([0, 0, 10, 6.05, 0.5, 2]) and not same([0, 0, 10, 6.2, 0.5, 1])
    many = np.array([[20 * i, 0, 20 * i + 9, 9, 0.9 - 0.02 * i, 1] for i in range(26)])
    last = many[25:].copy()
    for score, forgiven in ((many[24, 4] + 5e-4, True), (many[24, 4] + 5e-3, False)):
        last[0, 4] = score
        other = np.concatenate([many[:24], last])
        assert compare("kept", many[:25], other, x, (96, 64)).same == forgiven


def test_a_picture_without_boxes_is_compared_too(kit, tmp_path):
    pictures = {f"picture_{i}.png": {"boxes": []} for i in range(3)}
    report = judge(kit, {"pictures": pictures}, tmp_path)
    assert report.stage == "boxes" and "missing, 0 of 0 too many" in report.sentence
