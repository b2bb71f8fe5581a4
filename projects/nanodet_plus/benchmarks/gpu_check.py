#!/usr/bin/env python
"""Checks and measures training, evaluation and inference on this machine's GPU, within minutes.

Each part runs in a process of its own, so that one that fails, or hangs, does not stop the others.
What is found is in the json and, as tables, in the Markdown beside it after each row; what the
parts print is in the log there. Without a GPU the same parts run on the CPU, with small sizes.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import common
import torch
from gpu import contracts, equality, learning, resume, speed
from gpu.report import FAILED, LEFT_OUT, MEASURED, PASSED, Report, Row
from gpu.setting import Setting, free_memory

import nanodet_d2
from nanodet_d2.data.workers import usable_cores

SHORTEST_S = 15.0  # a part that has less is not begun: it would only import torch
END_S = 5.0  # that a part gets to end by itself, before it is ended
LAST_LINES = 3  # of the log, where a part dies


class Part(NamedTuple):
    """Checks that share a process, and their share of the time."""

    share: int
    checks: tuple[Callable[[Setting], Iterator[Row]], ...]


# The order is that of importance; torch.compile takes what it can get.
PARTS = {
    "equality": Part(2, (equality.equal_steps,)),
    "contracts": Part(3, (contracts.no_waiting, contracts.one_rank, contracts.automatic_batch)),
    "resume": Part(2, (resume.exact_resume,)),
    "speed": Part(3, (speed.steps,)),
    "learning": Part(3, (learning.learns, learning.evaluation, learning.inference)),
    "compiled": Part(5, (equality.compiled_step, speed.compiled_steps)),
    "loader": Part(2, (speed.loaded_steps,)),
}


def main() -> int:
    parser = common.parser(__doc__.splitlines()[0], output="gpu_check.json")
    add = parser.add_argument
    add("--minutes", type=float, default=8.0, help="for all of it (default: %(default)g)")
    add("--only", nargs="+", choices=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}")
    add("--part", choices=PARTS, help=argparse.SUPPRESS)  # of a process of a part
    add("--folder", type=Path, help=argparse.SUPPRESS)
    add("--ends", type=float, help=argparse.SUPPRESS)
    parser.set_defaults(threads=usable_cores())
    args = parser.parse_args()
    if args.part:
        run_part(args)
        return 0
    if args.minutes <= 0:
        parser.error(f"--minutes {args.minutes:g}; allowed: more than 0")
    return check(args)


def check(args: argparse.Namespace) -> int:
    """Run the parts one after another; 1 if something failed."""
    begin = time.monotonic()
    ends = begin + 60 * args.minutes
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # with its part
    common.start(args)
    args.output.unlink(missing_ok=True)
    report = Report(args.output)
    log_of(report).unlink(missing_ok=True)
    report.facts = facts(args.device)
    report.write()
    left = {name: part for name, part in PARTS.items() if not args.only or name in args.only}
    with tempfile.TemporaryDirectory(prefix="gpu_check_") as folder:
        draw(report, Setting(args.device, Path(folder), ends))
        while left:
            shares = sum(part.share for part in left.values())
            name = next(iter(left))
            share = left.pop(name).share / shares
            seconds = (ends - time.monotonic()) * share
            if seconds < SHORTEST_S:
                add_row(report, Row(f"the part {name}", LEFT_OUT, f"{seconds:.0f} s are left"))
            else:
                soon = time.monotonic() + seconds - END_S
                command = command_of(name, args, Path(folder), soon)
                supervise(name, command, seconds, report)
    report.facts["seconds"] = round(time.monotonic() - begin)
    report.write()
    counts = [f"{report.count(x)} {x}" for x in (PASSED, FAILED, MEASURED, LEFT_OUT)]
    common.show(f"{', '.join(counts)}: {args.output.with_suffix('.md')}")
    return int(report.count(FAILED) > 0)


def facts(device: str) -> dict[str, str]:
    """What the figures belong to."""
    found = {"device": device, "machine": common.machine(device)}
    if device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(device)
        found["memory"] = f"{properties.total_memory / 1e9:.0f} GB"
        found["CUDA"] = f"{torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    return {**found, "cores": str(usable_cores()), "nanodet_d2": nanodet_d2.__version__}


def draw(report: Report, setting: Setting) -> None:
    """The pictures that the parts share."""
    begin = time.monotonic()
    setting.pictures()
    count = sum(setting.sizes.pictures)
    size = setting.config_size()
    row = Row("drawing", MEASURED, f"{count} pictures of {size} x {size} px")
    add_row(report, row.after(time.monotonic() - begin))


def add_row(report: Report, row: Row) -> None:
    report.add(row)
    show(row)


def show(row: Row) -> None:
    common.show(f"{row.seconds:6.1f} s  {row.outcome:8}  {row.name}: {row.finding}")


def command_of(name: str, args: argparse.Namespace, folder: Path, ends: float) -> list[str]:
    """This program, as a process of one part."""
    options = ["--device", args.device, "--threads", args.threads, "--output", args.output]
    own = ["--part", name, "--folder", folder, "--ends", ends]
    return [sys.executable, "-W", "ignore", __file__, *map(str, (*options, *own))]


def supervise(name: str, command: Sequence[str], seconds: float, report: Report) -> None:
    """Run a part's process, show its rows, and end it, and what it started, after its time."""
    begin = time.monotonic()
    log = log_of(report)
    with log.open("ab") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
    shown = len(report.rows)
    code: int | None = None
    try:
        while code is None and time.monotonic() < begin + seconds:
            time.sleep(0.2)
            shown = show_new(report, shown)
            code = process.poll()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    show_new(report, shown)
    if code == 0:
        return
    fault = f"was ended after its {seconds:.0f} s; the log tells where"
    if code is not None and time.monotonic() < begin + seconds - END_S:
        words = log.read_text(errors="replace").splitlines()[-LAST_LINES:]
        fault = f"ended with {code}: {' / '.join(words)}"
    add_row(report, Row(f"the part {name}", FAILED, fault).after(time.monotonic() - begin))


def log_of(report: Report) -> Path:
    return report.path.with_suffix(".log")


def show_new(report: Report, shown: int) -> int:
    """Show the rows that the part's process has added; the number of all is returned."""
    report.read()
    for row in report.rows[shown:]:
        show(row)
    return len(report.rows)


def run_part(args: argparse.Namespace) -> None:
    """The checks of a part, in its own process: what one raises is its row."""
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    # By itself, and not only by the program that waits for it: says where it is, and ends.
    seconds = args.ends + END_S / 2 - time.monotonic()
    faulthandler.dump_traceback_later(max(seconds, 0.1), exit=True)
    torch.set_num_threads(args.threads)
    report = Report(args.output)
    setting = Setting(args.device, args.folder, args.ends)
    for one in PARTS[args.part].checks:
        begin = time.monotonic()
        try:
            for row in one(setting):
                report.add(row.after(time.monotonic() - begin))
                begin = time.monotonic()
        except Exception as error:
            traceback.print_exc()
            name = f"{args.part}: {one.__name__.replace('_', ' ')}"
            row = Row(name, FAILED, f"{type(error).__name__}: {error}".partition("\n")[0])
            report.add(row.after(time.monotonic() - begin))
        with contextlib.suppress(RuntimeError):  # of a GPU that answers no more
            free_memory(setting)
    faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    sys.exit(main())
