#!/usr/bin/env python
"""Estimate of what the processes of a training tell each other per step, for 8 to 256 GPUs.

Nothing is measured: gradient bytes come from the config's model, the times from the formula of
``all_reduce_ms``. The page on several hosts has the worked example.
"""

from __future__ import annotations

import argparse
import math

import common
from detectron2.config import LazyConfig, instantiate

GPUS_PER_HOST = 8
RANKS = (8, 16, 32, 64, 128, 256)
HOST = ("8 GPUs in one host, NVLink 300 GB/s", 300e9, 5e-6)
NETWORKS = {  # of a host: bytes per second, seconds from one host to another
    "10 Gbit/s Ethernet": (10e9 / 8, 30e-6),
    "25 Gbit/s Ethernet": (25e9 / 8, 30e-6),
    "100 Gbit/s InfiniBand": (100e9 / 8, 5e-6),
    "400 Gbit/s InfiniBand": (400e9 / 8, 5e-6),
}
FIRST_BUCKET, BUCKET = 2**20, 25 * 2**20  # bytes, of torch's DistributedDataParallel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config-file", default=str(common.CONFIGS / "nanodet_plus_m_416.py"))
    args = parser.parse_args()
    cfg = LazyConfig.load(args.config_file)
    cfg.model.head.num_classes = 80  # as in COCO, without its annotations
    sizes = {n: 4 * p.numel() for n, p in instantiate(cfg.model).named_parameters()}
    whole = sum(sizes.values())
    dropped = sum(size for name, size in sizes.items() if not name.startswith("aux_"))
    for name, size in (("with the auxiliary branch", whole), ("after it was dropped", dropped)):
        parts = buckets(size)
        megabytes = " + ".join(f"{x / 1e6:.1f}" for x in parts)
        common.show(f"\n{name}: {size / 1e6:.1f} MB of float32 gradients, sent as {megabytes} MB")
        rows = []
        for network, (bandwidth, latency) in NETWORKS.items():
            times = [step_ms(parts, ranks, bandwidth, latency) for ranks in RANKS[1:]]
            rows.append([network, *(f"{x:.1f}" for x in times)])
        header = ["ms per step", *(f"{ranks} GPUs" for ranks in RANKS[1:])]
        common.show(common.table(rows, header))
        common.show(f"{HOST[0]}: {step_ms(parts, RANKS[0], *HOST[1:]):.2f} ms")


def buckets(size: int) -> list[int]:
    """Bytes of the messages that so many bytes of gradients are sent in."""
    first = min(size, FIRST_BUCKET)
    rest = size - first
    full, last = divmod(rest, BUCKET)
    return [first, *[BUCKET] * full, *([last] if last else [])]


def step_ms(parts: list[int], ranks: int, bandwidth: float, latency: float) -> float:
    """Of the gradients' buckets and of the losses' normalisers, three floats."""
    return sum(all_reduce_ms(size, ranks, bandwidth, latency) for size in [*parts, 12])


def all_reduce_ms(size: int, ranks: int, bandwidth: float, latency: float) -> float:
    """Milliseconds to add up ``size`` bytes over all ranks, by a ring or a tree of the hosts.

    Ring (Patarasuk and Yuan 2009): 2 (H - 1) / H * size / bandwidth + 2 (H - 1) * latency.
    Double binary tree (Sanders, Speck and Traff 2009): 2 size / bandwidth + 2 log2(H) * latency.
    H counts hosts, since only one copy leaves each; within one host, its GPUs. NCCL takes the
    faster one.
    """
    members = ranks if ranks <= GPUS_PER_HOST else math.ceil(ranks / GPUS_PER_HOST)
    if members == 1:
        return 0.0
    ring = 2 * (members - 1) / members * size / bandwidth + 2 * (members - 1) * latency
    tree = 2 * size / bandwidth + 2 * math.log2(members) * latency
    return 1e3 * min(ring, tree)


if __name__ == "__main__":
    main()
