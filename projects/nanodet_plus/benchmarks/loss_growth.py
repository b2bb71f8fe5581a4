#!/usr/bin/env python
"""Time and memory of assignment and losses against boxes per image and against batch size.

Forward and backward; memory is the peak of all tensors above the predictions and ground truth. On a
CPU the allocator keeps its memory, unless --system-memory says not to.
Writes a plot beside the json.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import common
import loss
import matplotlib
import torch
from matplotlib.axes import Axes
from torch.profiler import ProfilerActivity, profile
from tqdm import tqdm

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

BOXES = (1, 3, 10, 30, 100, 300)  # per image
BATCHES = (1, 4, 16, 64, 256)
LIMIT_AT = (64, 100)  # images and boxes whose memory has a bar
LIMIT_MB = 1000


class Point(NamedTuple):
    images: int
    boxes: int
    ms: float
    megabytes: float


def measure(images: int, boxes: int, size: int, device: str, repeats: int) -> Point:
    """Median time and peak memory of one forward and backward pass."""
    batch = loss.make_batch(images, boxes, size, device)
    step = loss.backward(batch.batched, batch)
    step()
    megabytes = peak_bytes(step, device) / 1e6
    times = common.median_ms({"": step}, repeats=repeats, device=device, warmup=1)
    return Point(images, boxes, times[""], megabytes)


def peak_bytes(call: Callable[[], Any], device: str) -> int:
    """How much more memory tensors take at the worst moment of ``call`` than before it."""
    if device.startswith("cuda"):
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        call()
    with tempfile.NamedTemporaryFile(suffix=".json") as trace:
        profiled.export_chrome_trace(trace.name)
        events = json.loads(Path(trace.name).read_text())["traceEvents"]
    changes = [x for x in events if x["name"] == "[memory]"]
    changes.sort(key=lambda x: x["ts"])
    now = peak = 0
    for change in changes:
        now += change["args"]["Bytes"]
        peak = max(peak, now)
    return peak


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0], output="loss_growth.json")
    parser.add_argument("--size", type=int, default=416, help="of the images, in pixels")
    parser.add_argument("--images", type=int, default=16, help="while the boxes grow")
    parser.add_argument("--boxes", type=int, default=7, help="per image, while the batch grows")
    parser.add_argument(
        "--system-memory", action="store_true", help="give memory back after each tensor (CPU)"
    )
    parser.set_defaults(repeats=5)
    args = parser.parse_args()
    if args.device == "cpu" and not args.system_memory:
        common.restart_with_kept_memory()
    common.start(args)
    wanted = [(args.images, boxes) for boxes in BOXES]
    wanted += [(images, args.boxes) for images in BATCHES] + [LIMIT_AT]
    progress = tqdm(wanted, desc="images and boxes")
    points = [measure(*x, args.size, args.device, args.repeats) for x in progress]

    growing_boxes, growing_batch = points[: len(BOXES)], points[len(BOXES) : -1]
    rows = [(x.images, x.boxes, f"{x.ms:.1f}", f"{x.megabytes:.0f}") for x in points]
    common.show(common.table(rows, ["images", "boxes each", "ms", "MB"]))
    limit = points[-1]
    common.show(
        f"{limit.images} images of {args.size} px, {limit.boxes} boxes each: "
        f"{limit.megabytes:.0f} MB (bar: {LIMIT_MB})"
    )
    common.save(args.output, {"points": [x._asdict() for x in points]}, args.device)
    figure, axes = plt.subplots(1, 2, figsize=(10, 4))
    plot(axes[0], [x.boxes for x in growing_boxes], growing_boxes)
    axes[0].set(xlabel="boxes per image", title=f"{args.images} images of {args.size} px")
    plot(axes[1], [x.images for x in growing_batch], growing_batch)
    axes[1].set(xlabel="images", title=f"{args.boxes} boxes each, {args.size} px")
    figure.suptitle(common.machine(args.device), fontsize=8)
    figure.tight_layout()
    picture = args.output.with_suffix(".png")
    figure.savefig(picture, dpi=100)
    common.show(f"written: {picture}")


def plot(left: Axes, x: list[int], points: list[Point]) -> None:
    """Time on the left axis, memory on the right one, with a line of linear growth."""
    right = left.twinx()
    lines = left.plot(x, [p.ms for p in points], "o-", color="tab:blue", label="time")
    lines += right.plot(x, [p.megabytes for p in points], "s-", color="tab:red", label="memory")
    linear = [points[-1].ms * v / x[-1] for v in x]
    lines += left.plot(x, linear, ":", color="tab:gray", label="time in proportion to the last")
    left.set_ylabel("ms, forward and backward")
    right.set_ylabel("MB at the peak")
    for axis in (left, right):
        axis.set_ylim(bottom=0)
    left.legend(handles=lines, loc="upper left")


if __name__ == "__main__":
    main()
