#!/usr/bin/env python
"""Exported files, or kinds of NMS, beside the first one: AP with its standard error, nats, times.

    python compare.py m.onnx m_int8.onnx --data instances_val2017.json --images val2017
    python compare.py m.onnx --nms plain voting --data instances_val2017.json --images val2017

A difference in AP is that of the same pictures; its standard error is the deviation over draws of
as many pictures, with replacement, the same ones for both sides (paired bootstrap). Nats are the
Kullback-Leibler divergence of raw outputs, for each of a picture's best 100 candidates: by them
INT8 is chosen. Times are of sides that take turns, on some of the same pictures.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch

from nanodet_d2.benchmark.measure import all_threads, measure
from nanodet_d2.export.calibration import spread
from nanodet_d2.export.int8.explain import divergence
from nanodet_d2.export.score import evaluate
from nanodet_d2.runtime import Detector
from nanodet_d2.runtime.files import list_images
from nanodet_d2.runtime.images import load_image
from nanodet_d2.runtime.progress import progress
from nanodet_d2.shipping.noise import drop_deviation, evaluation_of


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0], output="compare.json")
    parser.add_argument("files", type=Path, nargs="+", help="exported files, raw or decoded")
    parser.add_argument("--nms", nargs="+", default=[None], choices=("plain", "voting"),
                        help="each file with each of these (default: its own)")  # fmt: skip
    parser.add_argument("--data", type=Path, required=True, help="annotations in COCO format")
    parser.add_argument("--images", type=Path, required=True, help="the folder of their pictures")
    parser.add_argument("--draws", type=int, default=300, help="for standard errors (default: 300)")
    parser.add_argument("--pictures", type=int, default=16, help="at most, to take times with")
    parser.add_argument("--no-ap", action="store_true", help="leave out AP")
    parser.add_argument("--no-nats", action="store_true", help="leave out nats")
    parser.set_defaults(device="cpu")
    args = parser.parse_args()
    common.start(args)
    logging.getLogger("detectron2").setLevel(logging.WARNING)
    sides = {
        " ".join(filter(None, [path.name, nms])): Detector(path, num_threads=args.threads, nms=nms)
        for path in args.files
        for nms in args.nms
    }
    facts: dict[str, dict[str, Any]] = {name: {} for name in sides}
    parts = [None if args.no_ap else add_ap, None if args.no_nats else add_nats,
             add_times if args.repeats else None]  # fmt: skip
    for part in filter(None, parts):
        part(sides, facts, args)
    header = list(dict.fromkeys(key for x in facts.values() for key in x))
    rows = [[name, *(f"{x[key]:.4g}" if key in x else "" for key in header)]
            for name, x in facts.items()]  # fmt: skip
    common.show(common.table(rows, ["side", *header]))
    common.save(args.output, facts, args.device)


def add_ap(
    sides: Mapping[str, Detector], facts: dict[str, dict[str, Any]], args: argparse.Namespace
) -> None:
    first = None
    for name, detector in sides.items():
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
            results, evaluator = evaluate(detector, args.data, args.images)
        facts[name]["AP"] = results["bbox"]["AP"]
        evaluation = evaluation_of(*evaluator.found())
        if first is None:
            first = evaluation, facts[name]["AP"]
            continue
        facts[name]["AP less the first"] = facts[name]["AP"] - first[1]
        facts[name]["standard error"] = drop_deviation(first[0], evaluation, draws=args.draws)


def add_nats(
    sides: Mapping[str, Detector], facts: dict[str, dict[str, Any]], args: argparse.Namespace
) -> None:
    """Of files with one raw output; those whose raw outputs are the first's have none."""
    raw = {name: x for name, x in sides.items() if x.metadata.kind == "raw"}
    (first, *others) = raw
    classes = len(raw[first].class_names)
    nats: dict[str, list[float]] = {
        name: [] for name in others if raw[name].path != raw[first].path
    }
    for path in list_images([args.images]) if nats else ():
        image = load_image(path)
        expected = torch.from_numpy(raw[first].raw(image)["output"][0])
        for name, values in nats.items():
            found = torch.from_numpy(raw[name].raw(image)["output"][0])
            values.append(divergence(expected, found, classes))
    for name, values in nats.items():
        facts[name]["nats"] = float(np.mean(values))


def add_times(
    sides: Mapping[str, Detector], facts: dict[str, dict[str, Any]], args: argparse.Namespace
) -> None:
    images = [load_image(x) for x in spread(list_images([args.images]), args.pictures)]
    with all_threads(args.threads), progress(args.repeats * len(sides), unit="block") as bar:
        times = measure(sides, images, rounds=args.repeats, bar=bar)
    first = next(iter(times.values()))
    for name, found in times.items():
        for part, words in (("network", "network"), ("total", "image to boxes")):
            ms = found[part]["median_ms"]
            facts[name][f"{words}, ms"] = ms
            facts[name][f"{words}, to the first"] = ms / first[part]["median_ms"]


if __name__ == "__main__":
    main()
