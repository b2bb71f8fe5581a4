"""Planted mistakes with pictures that keep their proportions, as the models before NanoDet-Plus
have them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from nanodet_d2.conformance import write_kit
from nanodet_d2.conformance.stages import STAGES
from nanodet_d2.runtime.backends import backend_of

from .port import Port
from .test_check import judge


def write(small_models, folder: Path, *, resize: str) -> Path:
    """A kit of one model, as if it had this, and its priors in the middle of their cells."""
    model = small_models.file("torchscript")
    facts = json.loads(backend_of(model).metadata_path(model).read_text())
    facts |= {"score_threshold": 0.12, "max_detections": 25, "prior_offset": 0.5}
    facts["input"]["resize"] = resize
    (folder / f"{resize}.json").write_text(json.dumps(facts))
    return write_kit(model, folder / resize, metadata=folder / f"{resize}.json")


@pytest.fixture(scope="module")
def kit(small_models, tmp_path_factory) -> Path:
    return write(small_models, tmp_path_factory.mktemp("kit"), resize="fit")


class Fitted(Port):
    """One whose pictures keep their proportions."""

    def place(self, rows: int, columns: int) -> tuple[int, int, float, float, float]:
        """Height and width in the input; factor, and shift of x and y."""
        factor = min(self.height / rows, self.width / columns)
        height, width = max(1, math.floor(factor * rows)), max(1, math.floor(factor * columns))
        factor = min(height / rows, width / columns)
        return height, width, factor, (width - factor * columns) / 2, (height - factor * rows) / 2

    def resized(self, image):
        height, width, *place = self.place(*image.shape[:2])
        rows = self.sampled(image.astype(np.float64), height, place[0], place[2])
        small = self.sampled(rows.transpose(1, 0, 2), width, place[0], place[1])
        return self.bordered(np.floor(small.transpose(1, 0, 2) + 0.5))

    def sampled(self, image, out, factor, shift):
        black, lines = np.zeros_like(image[0]), []
        for i in range(out):
            low, share = divmod(round((i - shift) / factor * 32) / 32, 1)
            pair = [image[int(j)] if 0 <= j < len(image) else black for j in (low, low + 1)]
            lines.append(pair[0] * (1 - share) + pair[1] * share)
        return np.array(lines)

    def border(self):
        mean = self.contract["input_mean"]
        return mean[::-1] if self.contract["input_channel_order"] == "RGB" else mean

    def bordered(self, small):
        canvas = np.empty((self.height, self.width, 3))
        canvas[:] = self.border()
        canvas[: small.shape[0], : small.shape[1]] = small
        return canvas

    def prior(self, column, row, stride):
        return (column + 0.5) * stride, (row + 0.5) * stride

    def scaled(self, rows, height, width):
        *_, factor, x, y = self.place(height, width)
        sides = [(x, width), (y, height)] * 2
        rows = [
            [*(self.clipped((v - m) / factor, most) for v, (m, most) in zip(row, sides)), *row[4:]]
            for row in rows
        ]
        return [row for row in rows if row[2] > row[0] and row[3] > row[1]]


class StretchedInstead(Fitted):
    resized = Port.resized


class BlackBorder(Fitted):
    def border(self):
        return 0.0


class InTheMiddle(Fitted):
    def resized(self, image):
        factor = min(self.height / image.shape[0], self.width / image.shape[1])
        inner = cv2.resize(image, (round(image.shape[1] * factor), round(image.shape[0] * factor)))
        y, x = (self.height - inner.shape[0]) // 2, (self.width - inner.shape[1]) // 2
        canvas = self.bordered(inner[:0])
        canvas[y : y + inner.shape[0], x : x + inner.shape[1]] = inner
        return canvas


class FittedByOpenCv(Fitted):
    def resized(self, image):
        height, width, *_ = self.place(*image.shape[:2])
        return self.bordered(cv2.resize(image, (width, height)))


class CellCorners(Fitted):
    prior = Port.prior


class BoxesOfStretched(Fitted):
    scaled = Port.scaled


MISTAKES = {
    StretchedInstead: "input: stretched, not fitted",
    BlackBorder: "input: fitted with a border of black, not of the mean",
    InTheMiddle: "input: letterboxed otherwise (in the middle, border the mean)",
    FittedByOpenCv: "input: resized with half-pixel centres",
    CellCorners: "decode: priors shifted by half a cell, to the upper left",
    BoxesOfStretched: "boxes: scaled as of a stretched picture",
}


@pytest.mark.parametrize("port", MISTAKES, ids=lambda x: x.__name__)
def test_a_planted_mistake_is_named(kit, tmp_path, port):
    report = judge(kit, port(kit).result(STAGES), tmp_path)
    assert report.finding == MISTAKES[port], report.text()


def test_a_right_port_passes_where_the_contract_says_so_alone(kit, small_models, tmp_path):
    report = judge(kit, Fitted(kit).result(STAGES), tmp_path)
    assert report.same and tuple(report.checked) == STAGES, report.text()
    stretched = write(small_models, tmp_path, resize="stretch")
    report = judge(stretched, Fitted(kit).result(("tensor",)), tmp_path)
    assert not report.same and report.stage == "tensor"
