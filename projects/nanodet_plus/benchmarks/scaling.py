#!/usr/bin/env python
"""Steps of several processes against those of one, and how long the gradients take to be added up.

torchrun --nproc_per_node 2 scaling.py [--images 8] [--threads 1]

Every process has as many images, each step. The sides take turns: the first process alone; all
processes side by side, none of which talks to another; all together, in torch's distributed
wrapper. What lies between the first two is what they share of the machine, between the last two
what they wait for each other. With processors of its own for each process the first is nothing.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from unittest import mock

import common
import torch
import torch.distributed as dist
from detectron2.config import LazyConfig
from detectron2.utils import comm
from train_step import make_batch, make_step

from nanodet_d2.engine.building import distribute

PHASES = {"with the auxiliary branch": False, "after it was dropped": True}


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0], output="scaling.json")
    parser.add_argument("--config-file", default=str(common.CONFIGS / "nanodet_plus_m_320.py"))
    parser.add_argument("--images", type=int, default=8, help="per process")
    parser.set_defaults(repeats=7, threads=1)
    args = parser.parse_args()
    if args.device == "cuda":
        args.device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(args.device)
    dist.init_process_group("nccl" if args.device.startswith("cuda") else "gloo")
    torch.set_num_threads(args.threads)
    result = {name: measure(args, detached) for name, detached in PHASES.items()}
    if comm.is_main_process():
        report(args, result)
    dist.destroy_process_group()


def measure(args: argparse.Namespace, detached: bool) -> dict[str, float]:
    """Median milliseconds of each side, and of adding up as many bytes as the gradients have."""
    batch = make_batch(args.images, 7, LazyConfig.load(args.config_file).data.input_size)
    gradients = 0

    def step(distributed: bool) -> Callable[[], None]:
        cfg = LazyConfig.load(args.config_file)
        cfg.train.device = args.device
        cfg.model.aux_after_detach = "drop"

        def wrap(model: torch.nn.Module) -> torch.nn.Module:
            nonlocal gradients
            for parameter in model.auxiliary_parameters():
                parameter.requires_grad_(not detached)
            gradients = sum(p.numel() for p in model.parameters() if p.requires_grad)
            return distribute(cfg, model) if distributed else model

        return make_step(cfg, batch, args.device, detached=detached, wrap=wrap)

    own, shared = step(False), step(True)

    def unaware() -> None:
        with mock.patch.object(comm, "get_world_size", return_value=1):
            own()

    values = torch.zeros(gradients, device=args.device)
    sides = {
        "alone": unaware if comm.is_main_process() else lambda: None,
        "side by side": unaware,
        "together": shared,
        "gradients": lambda: dist.all_reduce(values),
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(args.repeats + 1):
        for name, call in sides.items():
            comm.synchronize()
            begin = time.perf_counter()
            call()
            if args.device.startswith("cuda"):
                torch.cuda.synchronize()
            times[name].append((time.perf_counter() - begin) * 1e3)
    medians = {name: statistics.median(x[1:]) for name, x in times.items()}
    slowest = [max(x) for x in zip(*comm.all_gather(list(medians.values())))]
    return {**dict(zip(medians, slowest)), "gradient_megabytes": gradients * 4 / 1e6}


def report(args: argparse.Namespace, result: dict[str, dict[str, float]]) -> None:
    ranks = comm.get_world_size()
    common.show(common.machine(args.device))
    common.show(f"{args.images} images per process, {ranks} processes, {args.config_file}")
    rows = []
    for name, x in result.items():
        alone, together = args.images / x["alone"] * 1e3, ranks * args.images / x["together"] * 1e3
        speed = [f"{alone:.1f}", f"{together:.1f}", f"{together / alone:.2f}"]
        ms = [f"{x[side]:.0f}" for side in ("alone", "side by side", "together")]
        megabytes = x["gradient_megabytes"]
        rows.append([name, *ms, *speed, f"{megabytes:.1f} MB in {x['gradients']:.1f} ms"])
    times = ["alone, ms", "side by side, ms", "together, ms"]
    speeds = ["images/s alone", "together", "ratio"]
    common.show(common.table(rows, ["step", *times, *speeds, "gradients alone"]))
    common.save(args.output, {"ranks": ranks, **result}, args.device)


if __name__ == "__main__":
    main()
