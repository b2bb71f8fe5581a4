#!/usr/bin/env python
"""AP against latency of NanoDet-Plus and of other projects' detectors, all by ONNX Runtime.

``--peers`` is a folder of ONNX files whose names begin with that of a decoding (deimv2, picodet,
yolox; see nanodet_d2/benchmark/decoding.py). Of ours those are measured whose weights are there:
their float32 files are exported. All take turns in one process, on the same pictures.
"""

from __future__ import annotations

import collections
import datetime
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import common
import matplotlib.figure
import numpy as np

from nanodet_d2 import zoo
from nanodet_d2.benchmark.decoding import DECODINGS
from nanodet_d2.benchmark.measure import all_threads, average_precision, measure
from nanodet_d2.benchmark.peer import Peer
from nanodet_d2.export.calibration import spread
from nanodet_d2.export.job import Job
from nanodet_d2.export.loading import load_model
from nanodet_d2.export.writer import export
from nanodet_d2.runtime import Detector
from nanodet_d2.runtime.files import list_images
from nanodet_d2.runtime.images import load_image
from nanodet_d2.runtime.progress import progress

MOST = 200  # pictures that are looked at for their size
PARTS = {"total": "image to boxes", "network": "network alone"}


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0], output="peers.json")
    parser.add_argument("--peers", type=Path, required=True, help="folder of ONNX files")
    parser.add_argument("--data", type=Path, required=True, help="annotations in COCO format")
    parser.add_argument("--images", type=Path, required=True, help="the folder of their pictures")
    parser.add_argument("--pictures", type=int, default=16, help="at most, to take times with")
    parser.add_argument("--chart", type=Path, help="png to write, beside the json if absent")
    parser.set_defaults(repeats=30, device="cpu")
    args = parser.parse_args()
    common.start(args)
    logging.getLogger("detectron2").setLevel(logging.WARNING)
    pictures = pictures_of_one_size(args.images, args.pictures)
    count = len(json.loads(args.data.read_text(encoding="utf-8"))["images"])

    detectors = ours(args.output.parent / "peers", args.threads)
    names = next(iter(detectors.values())).class_names
    detectors |= others(args.peers, names, args.threads)
    with all_threads(args.threads), progress(args.repeats * len(detectors), unit="block") as bar:
        latency = measure(detectors, pictures, rounds=args.repeats, bar=bar)
    facts = {}
    for name, detector in detectors.items():
        ap = average_precision(detector, args.data, args.images)
        facts[name] = {"AP": ap, "peer": isinstance(detector, Peer), **latency[name]}
        common.show(f"{name}: AP {ap:.2f}")

    date = datetime.date.today().isoformat()
    caveat = (
        f"AP on {count} pictures: on all of COCO val2017 it differs by points. ONNX Runtime, {date}"
    )
    common.show("")
    common.show(common.table(rows_of(facts), header()))
    chart = args.chart or args.output.with_suffix(".png")
    draw(facts, chart, caveat=caveat, machine=common.machine("cpu"))
    common.save(args.output, {"date": date, "pictures": count, "models": facts}, "cpu")
    common.show(f"written: {chart}")


def pictures_of_one_size(folder: Path, count: int) -> list[np.ndarray]:
    """Some of a folder, all of its commonest size, as a camera gives them."""
    images = [load_image(x) for x in spread(list_images([folder]), MOST)]
    ((shape, _),) = collections.Counter(x.shape for x in images).most_common(1)
    chosen = [x for x in images if x.shape == shape][:count]
    common.show(f"times: {len(chosen)} pictures of {shape[1]} x {shape[0]}")
    return chosen


def ours(folder: Path, threads: int) -> dict[str, Detector]:
    """Our models whose weights are there, as float32 files."""
    found: dict[str, Detector] = {}
    for name in zoo.names():
        try:
            loaded = load_model(name)
        except (ValueError, OSError) as error:
            common.show(f"left out: {name}: {str(error).splitlines()[0]}")
            continue
        (written,) = export(loaded, Job(("onnx",), folder))
        found[name] = Detector(written.path, num_threads=threads)
    if not found:
        raise SystemExit(f"no weights of ours: name a folder with them by {zoo.FOLDER}")
    return found


def others(folder: Path, names: Sequence[str], threads: int) -> dict[str, Detector]:
    """The peers, by the names of their files."""
    found: dict[str, Detector] = {}
    for path in sorted(folder.glob("*.onnx")):
        (decoding,) = [x for x in DECODINGS if path.name.startswith(x)] or [None]
        if decoding is None:
            common.show(f"left out: {path.name}: no decoding begins its name")
            continue
        found[path.stem] = Peer(path, DECODINGS[decoding], names, num_threads=threads)
    return found


def header() -> list[str]:
    return ["model", "AP", "image to boxes, ms (p90)", "network alone, ms (p90)"]


def rows_of(facts: Mapping[str, Any]) -> list[list[str]]:
    """The fastest first."""
    return [
        [name, f"{x['AP']:.1f}"]
        + [f"{x[part]['median_ms']:.1f} ({x[part]['p90_ms']:.1f})" for part in PARTS]
        for name, x in sorted(facts.items(), key=lambda item: item[1]["total"]["median_ms"])
    ]


def draw(facts: Mapping[str, Any], path: Path, *, caveat: str, machine: str) -> None:
    """AP against milliseconds, from an image to its boxes and of the network alone."""
    figure = matplotlib.figure.Figure(figsize=(11, 5), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (part, words) in zip(panels, PARTS.items()):
        for name, x in facts.items():
            point = (x[part]["median_ms"], x["AP"])
            axes.scatter(*point, color="tab:gray" if x["peer"] else "tab:blue",
                         marker="s" if x["peer"] else "o", s=50)  # fmt: skip
            axes.annotate(name, point, xytext=(6, 4), textcoords="offset points", fontsize=8)
        axes.set(xlabel=f"{words}, ms", xlim=(0, 1.35 * max(x[part]["median_ms"]
                                                            for x in facts.values())))  # fmt: skip
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("AP")
    figure.suptitle(f"{caveat}\n{machine}", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
