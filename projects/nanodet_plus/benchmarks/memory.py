#!/usr/bin/env python
"""Memory of a training over 1,000 steps of the demo's config, loader workers and all.

The training runs as a user's does; the proportional set size of all its processes (each shared page
counted once) is read twice a second. The median over each 100 steps is compared with that of the
first 100 after the warm-up. Evaluations are part of it. Writes a plot beside the json.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common
import matplotlib
import psutil
from tqdm import tqdm

from nanodet_d2.data.synthetic import make_shapes_dataset

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

WINDOW = 100  # steps whose median counts
LIMIT = 0.02  # share by which memory may grow


def main() -> None:
    parser = common.parser(__doc__, output="memory.json")
    parser.add_argument("--steps", type=int, default=1000, help="after the warm-up")
    parser.add_argument("--warmup", type=int, default=300, help="steps that do not count")
    parser.add_argument("--workers", type=int, default=2, help="of the loader")
    args = parser.parse_args()
    common.start(args)
    with tempfile.TemporaryDirectory() as folder:
        readings = measure(args, Path(folder))
    windows = medians(readings)
    counted = {step: x for step, x in windows.items() if step >= args.warmup}
    first = next(iter(counted.values()))
    growth = max(counted.values()) / first - 1
    rows = [(step, f"{x:.0f}", f"{x / first - 1:+.2%}") for step, x in windows.items()]
    common.show(common.table(rows, ["from step", "MB", "against the first after the warm-up"]))
    common.show(f"growth {growth:.2%}; allowed {LIMIT:.0%}")
    common.save(args.output, {"readings": readings, "growth": growth}, args.device)
    draw(readings, args.warmup, args.output.with_suffix(".png"))


def measure(args, folder: Path) -> list[tuple[int, float]]:
    """(steps done, megabytes) twice a second."""
    splits = make_shapes_dataset(folder / "data")
    steps = args.warmup + args.steps
    options = [f"data.{split}.{k}={v}" for split, x in splits.items() for k, v in x.items()]
    options += [f"train.output_dir={folder / 'out'}", f"train.max_iter={steps}", "train.seed=0"]
    options += [f"dataloader.train.num_workers={args.workers}", f"train.device={args.device}"]
    options += [f"train.eval_period={WINDOW}", "train.log_period=10"]
    options += [f"train.checkpointer.period={WINDOW}"]
    command = [sys.executable, "-W", "ignore", str(common.CONFIGS.parent / "train_net.py")]
    command += ["--config-file", str(common.CONFIGS / "demo_shapes.py"), *options]
    readings = []
    with (folder / "log").open("w+") as log, tqdm(total=steps, unit="step") as bar:
        training = subprocess.Popen(
            command, env=common.environment(args.threads), stdout=log, stderr=subprocess.STDOUT
        )
        while training.poll() is None:
            time.sleep(0.5)
            done = steps_done(folder / "out" / "metrics.json")
            bar.update(done - bar.n)
            if done:
                readings.append((done, megabytes(training.pid)))
        if training.returncode:
            log.seek(0)
            raise RuntimeError(f"the training failed:\n{log.read()[-3000:]}")
    return readings


def steps_done(log: Path) -> int:
    lines = log.read_text().splitlines() if log.is_file() else []
    return json.loads(lines[-1])["iteration"] + 1 if lines else 0


def megabytes(pid: int) -> float:
    """Of a process and all below it; one that ends meanwhile counts for nothing."""
    total = 0
    try:
        parent = psutil.Process(pid)
        family = [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    for process in family:
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return total / 1e6


def medians(readings: list[tuple[int, float]]) -> dict[int, float]:
    windows: dict[int, list[float]] = {}
    for step, value in readings[:-1]:  # the last finds the training ending
        windows.setdefault(step // WINDOW * WINDOW, []).append(value)
    return {step: statistics.median(values) for step, values in windows.items()}


def draw(readings: list[tuple[int, float]], warmup: int, path: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
    axes.plot(*zip(*readings), linewidth=0.8)
    axes.axvline(warmup, color="grey", linestyle=":", label="end of the warm-up")
    axes.set(xlabel="step", ylabel="MB, all processes", ylim=(0, None))
    axes.legend()
    figure.savefig(path, dpi=120)
    common.show(f"written: {path}")


if __name__ == "__main__":
    main()
