"""What the benchmarks share: how a time is taken, and how a result is shown and kept."""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

import nanodet_d2  # noqa: F401  (detectron2 imports beside a new Pillow only after it)
from nanodet_d2.config import config_path

ROOT = Path(__file__).resolve().parents[3]
CONFIGS = config_path("nanodet_plus/base.py").parent
READS = ("aten::_local_scalar_dense", "aten::item", "aten::is_nonzero", "aten::nonzero")
# On a CPU torch's fused AdamW reads its own counters of steps, one per parameter, which lie in
# host memory; on a GPU they lie there, and nothing reads them.
HOSTS_OWN = "aten::_fused_adamw_"


def parser(description: str, *, output: str) -> argparse.ArgumentParser:
    """Arguments that all benchmarks take; ``output`` names the json below ``output/benchmarks``."""
    result = argparse.ArgumentParser(description=description)
    default = "cuda" if torch.cuda.is_available() else "cpu"
    result.add_argument("--device", default=default, help="of the measurement")
    result.add_argument("--threads", type=int, default=2, help="CPU threads of torch")
    result.add_argument("--repeats", type=int, default=15, help="of which the median counts")
    result.add_argument(
        "--output", type=Path, default=Path("output/benchmarks") / output, help="json to write"
    )
    return result


def start(args: argparse.Namespace) -> None:
    """Fix threads and seed, and print the machine."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    show(machine(args.device))


def machine(device: str) -> str:
    """One line: processor or GPU, threads and versions."""
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else _processor()
    return (
        f"{name}, {torch.get_num_threads()} threads, Python {platform.python_version()}, "
        f"torch {torch.__version__}"
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{names[0] if names else platform.machine()} ({capability})"


def median_ms(
    sides: Mapping[str, Callable[[], Any]], *, repeats: int, device: str, warmup: int = 2
) -> dict[str, float]:
    """Median milliseconds of each callable; they take turns, so that noise meets all alike."""
    for call in sides.values():
        for _ in range(warmup):
            call()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, call in sides.items():
            _synchronize(device)
            begin = time.perf_counter()
            call()
            _synchronize(device)
            times[name].append((time.perf_counter() - begin) * 1e3)
    return {name: statistics.median(x) for name, x in times.items()}


def calls_per_second(
    call: Callable[[], Any], *, seconds: float, device: str, warmup: int = 3, fewest: int = 3
) -> float:
    """Of calls in a row: on a GPU the host runs ahead of them, as it does in a training.

    Args:
        seconds: of host time, for which calls are started.
        fewest: calls, however long they take.
    """
    for _ in range(warmup):
        call()
    _synchronize(device)
    begin = time.perf_counter()
    count = 0
    while count < fewest or time.perf_counter() - begin < seconds:
        call()
        count += 1
    _synchronize(device)
    return count / (time.perf_counter() - begin)


def host_reads(step: Callable[[], Any]) -> list[str]:
    """Operators of a call of ``step`` that hand a value to the host, each with those above it.

    On a GPU each of them would wait for the device.
    """
    step()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        step()
    found = []
    for event in profiler.events():
        if event.name not in READS:
            continue
        callers, parent = [event.name], event.cpu_parent
        while parent is not None:
            callers.append(parent.name)
            parent = parent.cpu_parent
        if HOSTS_OWN not in callers:
            found.append(" < ".join(callers))
    return found


def operator_calls(step: Callable[[], Any]) -> tuple[int, int]:
    """Operators of PyTorch that a call of ``step`` uses, without and with those within others."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        step()
    operators = [x for x in profiler.events() if x.name.startswith("aten::")]
    return sum(not _within_operator(x) for x in operators), len(operators)


def _within_operator(event: Any) -> bool:
    parent = event.cpu_parent
    while parent is not None and not parent.name.startswith("aten::"):
        parent = parent.cpu_parent
    return parent is not None


def environment(threads: int) -> dict[str, str]:
    """Environment of a child process: this source tree first, and so many threads."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(threads)}


def restart_with_kept_memory() -> None:
    """Start this process again with an allocator that keeps its memory, as tcmalloc does.

    Else large tensors on a CPU are measured by how fast the operating system hands out pages.
    """
    kept = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}  # of glibc
    if any(name not in os.environ for name in kept):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **kept})


def _synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def show(text: str) -> None:
    """Print a line of a result at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def table(rows: Sequence[Sequence[Any]], header: Sequence[str]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def save(path: Path, result: Mapping[str, Any], device: str) -> None:
    """Write a result as json, with the machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine(device), **result}, indent=1))
    show(f"written: {path}")
