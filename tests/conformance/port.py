"""A port of pre- and post-processing that knows ``contract.json`` alone: plain loops, no line of
the package, as a program in another language has it. Each method is a step, to be done wrongly."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np


class Port:
    def __init__(self, kit: Path):
        self.kit = kit
        self.contract = json.loads((kit / "contract.json").read_text())
        self.height, self.width = self.contract["input_height"], self.contract["input_width"]
        self.classes = len(self.contract["class_names"])

    def result(self, stages: tuple[str, ...]) -> dict:
        """What ``nanodet-d2 check`` takes."""
        pictures = sorted(self.kit.glob("*.png"))
        return {"pictures": {x.name: self.picture(x, stages) for x in pictures}}

    def picture(self, path: Path, stages: tuple[str, ...]) -> dict:
        image = cv2.imread(str(path))
        tensor = self.tensor(image)
        raw = self.raw(self.engine(path))
        candidates = self.candidates(raw)
        kept = self.kept(candidates)
        boxes = self.scaled(kept, image.shape[0], image.shape[1])
        made = dict(tensor=tensor, raw=raw, candidates=candidates, kept=kept, boxes=boxes)
        return {name: np.asarray(self.written(name, made[name])).tolist() for name in stages}

    # To the network

    def tensor(self, image: np.ndarray) -> np.ndarray:
        return self.layout(self.normalised(self.resized(image)))

    def positions(self, size: int, out: int) -> list[float]:
        return [round(i * size * 32 / out) / 32 for i in range(out)]

    def beyond(self, line: np.ndarray) -> np.ndarray:
        """What is right of the last, or below."""
        return np.zeros_like(line)

    def resized(self, image: np.ndarray) -> np.ndarray:
        image = image.astype(np.float64)
        rows = self.along(image, self.height)
        return np.floor(self.along(rows.transpose(1, 0, 2), self.width).transpose(1, 0, 2) + 0.5)

    def along(self, image: np.ndarray, out: int) -> np.ndarray:
        lines = []
        for position in self.positions(len(image), out):
            low = min(max(math.floor(position), 0), len(image) - 1)
            share = min(max(position - low, 0), 1)
            after = image[low + 1] if low + 1 < len(image) else self.beyond(image[-1])
            lines.append(image[low] * (1 - share) + after * share)
        return np.array(lines)

    def normalised(self, pixels: np.ndarray) -> np.ndarray:
        if self.contract["input_channel_order"] == "RGB":
            pixels = pixels[:, :, ::-1]
        return (pixels - self.contract["input_mean"]) / self.contract["input_std"]

    def layout(self, pixels: np.ndarray) -> np.ndarray:
        return np.stack([pixels[:, :, channel] for channel in range(3)])

    # The network, whose engine computes a little otherwise

    def engine(self, path: Path) -> np.ndarray:
        raw = np.load(self.kit / f"{path.stem}.raw.output.npy")[0].astype(np.float64)
        rng = np.random.default_rng(len(raw))
        return raw + rng.uniform(-2e-6, 2e-6, raw.shape)

    def raw(self, raw: np.ndarray) -> np.ndarray:
        return raw

    # From the network

    def prior(self, column: int, row: int, stride: int) -> tuple[float, float]:
        return column * stride, row * stride

    def distance(self, logits: np.ndarray, stride: int) -> float:
        weights = [math.exp(logit - max(logits)) for logit in logits]
        return sum(i * w for i, w in enumerate(weights)) / sum(weights) * stride

    def sides(self, distances: list[float]) -> list[float]:
        """In the order left, top, right, lower."""
        return distances

    def clipped(self, value: float, limit: float) -> float:
        return min(max(value, 0.0), limit)

    def threshold(self) -> float:
        return self.contract["score_threshold"]

    def candidates(self, raw: np.ndarray) -> list[list[float]]:
        found, prior, bins = [], 0, self.contract["reg_max"] + 1
        for stride in self.contract["strides"]:
            for row in range(math.ceil(self.height / stride)):
                for column in range(math.ceil(self.width / stride)):
                    values = raw[prior].tolist()
                    prior += 1
                    scores = values[: self.classes]
                    if max(scores) <= self.threshold():
                        continue
                    logits = values[self.classes :]
                    parts = [logits[i * bins : (i + 1) * bins] for i in range(4)]
                    left, top, right, lower = self.sides(
                        [self.distance(part, stride) for part in parts]
                    )
                    x, y = self.prior(column, row, stride)
                    box = [
                        self.clipped(x - left, self.width), self.clipped(y - top, self.height),
                        self.clipped(x + right, self.width), self.clipped(y + lower, self.height),
                    ]  # fmt: skip
                    found += self.of_prior(box, scores)
        return sorted(found, key=lambda one: -one[4])

    def of_prior(self, box: list[float], scores: list[float]) -> list[list[float]]:
        above = self.threshold()
        return [[*box, score, index] for index, score in enumerate(scores) if score > above]

    def iou(self, a: list[float], b: list[float]) -> float:
        width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        overlap = max(width, 0) * max(height, 0)
        areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
        return overlap / max(sum(areas) - overlap, 1e-9)

    def rivals(self, a: list[float], b: list[float]) -> bool:
        return a[5] == b[5] and self.iou(a, b) > self.contract["nms_threshold"]

    def kept(self, candidates: list[list[float]]) -> list[list[float]]:
        kept: list[list[float]] = []
        votes: list[list[list[float]]] = []
        for one in candidates:
            if len(kept) < self.contract["max_detections"]:
                owner = [i for i, better in enumerate(kept) if self.rivals(one, better)]
                if not owner:
                    kept.append(one)
                    votes.append([one])
                elif self.iou(one, kept[owner[0]]) > self.contract["vote_threshold"]:
                    votes[owner[0]].append(one)
        return kept if self.contract["nms"] == "plain" else list(map(self.mean, votes))

    def mean(self, votes: list[list[float]]) -> list[float]:
        total = sum(self.weight(one) for one in votes)
        box = [sum(self.weight(one) * one[side] for one in votes) / total for side in range(4)]
        return [*box, *votes[0][4:]]

    def weight(self, one: list[float]) -> float:
        return one[4] ** self.contract["vote_power"]

    def factors(self, height: int, width: int) -> tuple[float, float]:
        return width / self.width, height / self.height

    def scaled(self, rows: list[list[float]], height: int, width: int) -> list[list[float]]:
        fx, fy = self.factors(height, width)
        rows = [[x0 * fx, y0 * fy, x1 * fx, y1 * fy, *rest] for x0, y0, x1, y1, *rest in rows]
        return [row for row in rows if row[2] > row[0] and row[3] > row[1]]

    def written(self, stage: str, value):
        """Before it goes into the file."""
        return value
