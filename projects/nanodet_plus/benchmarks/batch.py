#!/usr/bin/env python
"""``nanodet-d2 batch`` over many pictures: is nothing lost, and does a second process help?

Draws pictures, breaks some, and runs the command over them: with 1, 2 and 3 processes, killed three
times at random and run again, and with ``--ray`` on a Ray of two machines on this one, of which one
is killed. All have to write the same bytes. Then the images per second of the command with 2
processes are compared with those of one detector in one process, in turns; loading of the model
counts on neither side, so the command's are those of a larger and a smaller set's difference.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import common
import cv2

from nanodet_d2.batch.command import SHARD_SIZE
from nanodet_d2.data.shapes import draw_picture

BAR = 1.8  # images per second of two processes, one detector's being 1
KILLS = 3
BROKEN = (b"", b"<html>404 Not Found</html>", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0")


def main() -> None:
    parser = common.parser(__doc__, output="batch.json")
    parser.add_argument("model", help="an exported file")
    parser.add_argument("--pictures", type=int, default=20_000, help="drawn ones")
    parser.add_argument("--broken", type=int, default=50, help="of them")
    parser.add_argument("--size", type=int, default=320, help="of a picture's sides, pixels")
    parser.add_argument("--timed", type=int, default=1000, help="pictures that are timed")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 3], help="processes")
    parser.add_argument("--ray", action="store_true", help="on a Ray of two machines, too")
    parser.set_defaults(repeats=3, threads=1)
    args = parser.parse_args()
    common.start(args)
    args.model = str(Path(args.model).resolve())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw(folder / "pictures", args.pictures, args.broken, args.size)
        result = {"same": same_bytes(args, folder), "speed": speed(args, folder)}
    rows = [(name, f"{seconds:.0f}") for name, seconds in result["same"]["seconds"].items()]
    common.show(common.table(rows, ["run, all with the same bytes", "seconds"]))
    gain = result["speed"]["gain"]
    common.show(f"2 processes against one detector: {gain:.2f} times; bar {BAR}")
    common.save(args.output, result, args.device)


def draw(folder: Path, count: int, broken: int, size: int) -> None:
    """Pictures in folders of a thousand; the broken ones lie evenly among them."""
    every = count // broken if broken else count + 1
    for i in range(count):
        path = folder / f"{i // 1000:03}" / f"{i:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if i % every == every // 2 and i // every < broken:
            path.write_bytes(BROKEN[i // every % len(BROKEN)])
        else:
            cv2.imwrite(str(path), draw_picture(i, "val", 0, size)[0])


def start(args: argparse.Namespace, inputs: str, output: Path, *options: str) -> subprocess.Popen:
    """The command; names of inputs are relative to the folder of the output."""
    command = [sys.executable, "-W", "ignore", "-m", "nanodet_d2", "batch", args.model, inputs]
    command += ["--output", output.name, "--format", "coco", "--threads", str(args.threads)]
    return subprocess.Popen(
        [*command, "--json", *options],
        cwd=output.parent,
        env=common.environment(args.threads),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def finish(process: subprocess.Popen) -> dict:
    out, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{process.args} ended with {process.returncode}")
    return json.loads(out)


def hashes(folder: Path) -> str:
    """One hash of all files below a folder, and of their names."""
    found = hashlib.sha256()
    for path in sorted(x for x in folder.rglob("*") if x.is_file()):
        found.update(f"{path.relative_to(folder)}\0".encode())
        found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()


def same_bytes(args: argparse.Namespace, folder: Path) -> dict:
    """Runs of all kinds; raises if one differs from the first."""
    seconds: dict[str, float] = {}
    expected: dict[str, object] = {}

    def check(name: str, facts: dict, output: Path, begin: float) -> None:
        counts = {key: facts[key] for key in ("pictures", "unreadable")}
        found = {"hash": hashes(output), **counts}
        expected.update(expected or found)
        if found != expected:
            raise RuntimeError(f"{name}: {found}, not {expected}")
        seconds[name] = time.perf_counter() - begin
        common.show(f"{name}: {seconds[name]:.0f} s, {found}")

    for workers in args.workers:
        output, begin = folder / f"workers{workers}", time.perf_counter()
        facts = finish(start(args, "pictures", output, "--workers", str(workers)))
        check(f"{workers} processes", facts, output, begin)
        if len(seconds) == 1:
            one = (time.perf_counter() - begin) * min(workers, os.cpu_count() or 1)
            common.show(f"about {minutes_left(args, one):.0f} minutes left")
    output, begin = folder / "killed", time.perf_counter()
    rng = random.Random()
    for i in range(KILLS):
        process = start(args, "pictures", output, "--workers", str(1 + i % 3))
        kill_at(process, output, rng.uniform(0.1, 0.3) * args.pictures * (i + 1))
    check(f"killed {KILLS} times", finish(start(args, "pictures", output)), output, begin)
    if args.ray:
        output, begin = folder / "ray", time.perf_counter()
        with two_machines() as (address, lose_one):
            options = ("--engine", "ray", "--address", address)
            process = start(args, "pictures", output, *options)
            wait_for(process, output, rng.uniform(0.2, 0.6) * args.pictures)
            lose_one()
            facts = finish(process)
        check("Ray, one of two machines killed", facts, output, begin)
    if (expected["pictures"], expected["unreadable"]) != (args.pictures, args.broken):
        raise RuntimeError(f"{expected}, not {args.pictures} pictures, {args.broken} broken")
    return {"seconds": seconds, **expected}


def minutes_left(args: argparse.Namespace, one: float) -> float:
    """What remains after the first run, if one process takes so many seconds for all pictures."""
    cores = os.cpu_count() or 1
    runs = [1 / min(x, cores) for x in args.workers[1:]]
    runs.append(1.2 / cores)  # killed, and what was under way made again
    runs += [0.9] if args.ray else []  # on two machines, then on one
    timed = args.repeats * args.timed / args.pictures * (1 + 1.1 + 1.1 / min(2, cores))
    return one * (sum(runs) + timed) / 60


def wait_for(process: subprocess.Popen, output: Path, pictures: float) -> None:
    """Until so many pictures are done, by the default size of shards."""
    while len(list(output.glob("shards/*.jsonl"))) * SHARD_SIZE < pictures:
        if process.poll() is not None:
            raise RuntimeError("the run was over before it could be killed: give more --pictures")
        time.sleep(0.05)


def kill_at(process: subprocess.Popen, output: Path, pictures: float) -> None:
    wait_for(process, output, pictures)
    process.kill()
    process.communicate()


@contextlib.contextmanager
def two_machines() -> Iterator[tuple[str, object]]:
    """A Ray whose two machines are processes here: its address, and what kills the second."""
    os.environ["PYTHONPATH"] = common.environment(1)["PYTHONPATH"]
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second = cluster.add_node(num_cpus=1)
    try:
        yield cluster.address, lambda: cluster.remove_node(second, allow_graceful=False)
    finally:
        cluster.shutdown()


def speed(args: argparse.Namespace, folder: Path) -> dict:
    """Images per second, one detector's in one process and the command's with two, in turns."""
    paths = sorted((folder / "pictures").rglob("*.jpg"))
    paths = [x for x in paths if x.stat().st_size > max(map(len, BROKEN))][: args.timed]
    few = paths[: max(1, len(paths) // 10)]
    for name, listed in (("all.txt", paths), ("few.txt", few)):
        lines = [f"../{x.relative_to(folder).as_posix()}" for x in listed]
        (folder / name).write_text("\n".join(lines))
    rounds = [one_round(args, folder, paths, len(few)) for _ in range(args.repeats)]
    rates = {name: statistics.median(x[name] for x in rounds) for name in rounds[0]}
    gain = statistics.median(x["2 processes"] / x["one detector"] for x in rounds)
    return {"images_per_second": rates, "gain": gain, "rounds": rounds}


def one_round(args, folder: Path, paths: list[Path], few: int) -> dict[str, float]:
    alone = (
        "import sys, time\nimport cv2\nfrom nanodet_d2.runtime import Detector\n"
        "model, threads, *paths = sys.argv[1:]\ncv2.setNumThreads(int(threads))\n"
        "detector = Detector(model, num_threads=int(threads))\ndetector(paths[0])\n"
        "begin = time.perf_counter()\nfor path in paths:\n    detector(path)\n"
        "print(len(paths) / (time.perf_counter() - begin))"
    )
    command = [sys.executable, "-c", alone, args.model, str(args.threads), *map(str, paths)]
    environment = common.environment(args.threads)
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    found = {"one detector": float(done.stdout)}
    for workers in (1, 2):
        seconds = {}
        for name in ("few.txt", "all.txt"):
            with tempfile.TemporaryDirectory(dir=folder) as output:
                begin = time.perf_counter()
                options = ("--workers", str(workers), "--shard-size", "16")
                finish(start(args, f"../{name}", Path(output) / "out", *options))
                seconds[name] = time.perf_counter() - begin
        found[f"{workers} processes"] = (len(paths) - few) / (
            seconds["all.txt"] - seconds["few.txt"]
        )
    return found


if __name__ == "__main__":
    main()
