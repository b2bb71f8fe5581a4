#!/usr/bin/env python
"""Latency of exported files, batch 1: against eager PyTorch, the official ncnn model, each other.

``--folder`` holds what ``nanodet-d2 export`` wrote for one config: whatever of the raw,
end2end, fp16 and int8 files is there is measured. All sides run in one process and take turns, in
bursts with a pause before each, because a runtime's threads go on spinning for a while after a
call and take processors from the next side.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch

from nanodet_d2.export.loading import load_model
from nanodet_d2.export.network import RawNetwork
from nanodet_d2.predictor import Detector
from nanodet_d2.runtime.backends import backend_of, backends
from nanodet_d2.runtime.images import load_image

PAUSE = 0.05  # seconds
WARMUP, BURST = 5, 15  # calls of a burst that do not count, and that do
NUMPY = " + NumPy"
PLAIN, FUSED = "pytorch eager", "pytorch eager, fused, channels_last"


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0], output="export.json")
    parser.add_argument("--folder", type=Path, required=True, help="of exported files")
    parser.add_argument("--config-file", default=str(common.CONFIGS / "nanodet_plus_m_416.py"))
    parser.add_argument("--weights", required=True)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--official", type=Path, help="the official ncnn model's param file")
    parser.set_defaults(repeats=8, device="cpu")
    args = parser.parse_args()
    common.start(args)
    image = load_image(args.image)
    sides = build_sides(args, image)
    times = take_turns(sides, rounds=args.repeats)
    rows = [
        [name, f"{statistics.median(x):.2f}", f"{min(x):.2f}", f"{np.percentile(x, 90):.2f}"]
        for name, x in times.items()
    ]
    common.show(common.table(rows, ["side", "median ms", "least ms", "p90 ms"]))
    checks = ratios(times)
    common.show("")
    common.show(common.table([[k, *v] for k, v in checks.items()], ["ratio", "median", "least"]))
    common.save(args.output, {"ms": times, "ratios": checks}, args.device)


def build_sides(args: Any, image: np.ndarray) -> dict[str, Callable[[], Any]]:
    """The network alone of every file, with its input ready; of the raw ones whole detections."""
    sides: dict[str, Callable[[], Any]] = {}
    eager = Detector(args.config_file, args.weights, num_threads=args.threads)
    sides[PLAIN] = plain_network(args, eager.prepare([image]))
    sides[FUSED] = network_alone(eager, image)
    for path in sorted(args.folder.iterdir()):
        if not any(path.name.endswith(x.suffix) for x in backends().values()):
            continue
        detector = Detector(path, num_threads=args.threads)
        sides[path.name] = network_alone(detector, image)
        if detector.metadata.kind == "raw":
            sides[path.name + NUMPY] = lambda detector=detector: detector(image)
    if args.official:
        ours = next(args.folder.glob("*_fp16.ncnn.param"))
        official = Detector(
            args.official, num_threads=args.threads, metadata=backend_of(ours).metadata_path(ours)
        )
        sides["official ncnn"] = network_alone(official, image)
    return sides


def plain_network(args: Any, data: np.ndarray) -> Callable[[], Any]:
    """The config's model as it is trained and evaluated, without fusion."""
    network = RawNetwork(load_model(args.config_file, args.weights).model).eval()
    tensor = torch.from_numpy(data)

    def call() -> Any:
        with torch.inference_mode():
            return network(tensor)

    return call


def network_alone(detector: Detector, image: np.ndarray) -> Callable[[], Any]:
    data = detector.prepare([image])
    return lambda: detector.run(data)


def take_turns(sides: Mapping[str, Callable[[], Any]], *, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of every counted call."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, call in sides.items():
            time.sleep(PAUSE)
            for i in range(WARMUP + BURST):
                start = time.perf_counter()
                call()
                if i >= WARMUP:
                    times[name].append(1000 * (time.perf_counter() - start))
    return times


def ratios(times: Mapping[str, list[float]]) -> dict[str, list[str]]:
    """What the bars are about, of medians and of least times."""
    pairs = {}
    fp32 = [n for n in times if "_int8" not in n and "_fp16" not in n]
    for suffix in (".onnx", ".xml", ".ncnn.param"):
        raw = next((n for n in fp32 if n.endswith(suffix) and "_end2end" not in n), None)
        whole = next((n for n in fp32 if n.endswith("_end2end" + suffix)), None)
        small = next((n for n in times if n.endswith("_int8" + suffix)), None)
        if raw and whole:
            pairs[f"{whole} / {raw}"] = (whole, raw)
            pairs[f"{whole} / the same{NUMPY}"] = (whole, raw + NUMPY)
        if raw and small:
            pairs[f"{small} / {raw}"] = (small, raw)
    for name in times:
        if "_end2end" not in name and NUMPY not in name and name not in (PLAIN, FUSED):
            pairs[f"{PLAIN} / {name}"] = (PLAIN, name)
            pairs[f"{FUSED} / {name}"] = (FUSED, name)
    ours = next((n for n in times if n.endswith("_fp16.ncnn.param")), None)
    if ours and "official ncnn" in times:
        pairs[f"{ours} / official"] = (ours, "official ncnn")
    return {
        title: [f"{f(times[a]) / f(times[b]):.2f}" for f in (statistics.median, min)]
        for title, (a, b) in pairs.items()
    }


if __name__ == "__main__":
    main()
