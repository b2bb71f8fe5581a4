#!/usr/bin/env python
"""``nanodet-d2 serve`` under load here: as fast as the detector alone, and nothing lost?

Rounds of: one detector in one process, then the server with 1, 8 and 32 clients, all with good
pictures. Then many requests of 8 clients, 5 % of them hostile: each answer is compared with what
the detector itself says, and the server's memory is watched. The clients are locust's, which wants
an environment of its own: ``python -m venv /tmp/locust; /tmp/locust/bin/pip install locust``.
Clients and server share this machine's processors.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import common
import cv2
import numpy as np

from nanodet_d2.data.shapes import draw_picture
from nanodet_d2.runtime import Detector
from nanodet_d2.runtime.images import read_bytes
from nanodet_d2.runtime.results import picture_row

BAR = 0.85  # images per second of the server with 8 clients, the detector's own being 1
MAX_GROWTH = 1.05  # of the server's memory, from the second quarter of the requests to the last
CLIENTS = (1, 8, 32)
MAX_BYTES = 2_000_000
THRESHOLD = 0.35
CLIENTS_FILE = Path(__file__).with_name("serving_clients.py")
SLOWEST = 5  # requests a second; clients that are slower give up, and what is left is lost


def main() -> None:
    parser = common.parser(__doc__, output="serving.json")
    parser.add_argument("model", help="an exported file")
    parser.add_argument("--locust", default="locust", help="the command, or its path")
    parser.add_argument("--pictures", type=int, default=60, help="different ones")
    parser.add_argument("--size", type=int, default=640, help="of a picture's sides, pixels")
    parser.add_argument("--timed", type=int, default=1000, help="requests of a timed run")
    parser.add_argument("--requests", type=int, default=20_000, help="of the mixed run")
    parser.add_argument("--hostile", type=float, default=0.05, help="share of them")
    parser.add_argument("--workers", type=int, default=2, help="of the server, a thread each")
    parser.set_defaults(repeats=3)
    args = parser.parse_args()
    common.start(args)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        good = draw(folder, args)
        write_list(folder / "good", good)
        share = round(len(good) * args.hostile / (1 - args.hostile))
        write_list(folder / "mixed", spread(good, hostile(folder), share))
        with server(args) as address:
            rounds = [one_round(args, folder, address) for _ in range(args.repeats)]
            speed = show_speed(rounds)
            mixed = run_mixed(args, folder, address)
    common.save(args.output, {"speed": speed, "rounds": rounds, "mixed": mixed}, args.device)


def draw(folder: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Pictures as JPEG files, and what is right for them."""
    detector = Detector(args.model, num_threads=1, score_thresh=THRESHOLD)
    listed = []
    for i in range(args.pictures):
        path = folder / f"{i}.jpg"
        cv2.imwrite(str(path), draw_picture(i, "val", i, args.size)[0])
        row = picture_row("0", detector(read_bytes(path.read_bytes(), path.name)))
        listed.append(entry(path, answer={**row, "error": None}))
    return listed


def entry(
    path: Path, *, status: int = 200, answer: Any = None, kind: str = "image/jpeg", **headers: str
) -> dict[str, Any]:
    """A body of ``bodies.json``: its file, headers, and the answer, if one is compared."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    told = {"status": status, "answer": answer, "headers": {"Content-Type": kind, **headers}}
    return {"file": str(path), **told}


def hostile(folder: Path) -> list[dict[str, Any]]:
    """Bodies that have to be refused, each in its way."""
    whole = (folder / "0.jpg").read_bytes()
    _, png = cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))
    huge = bytearray(png.tobytes())
    huge[16:24] = (60_000).to_bytes(4, "big") * 2
    files: dict[str, tuple[bytes, int, dict[str, str]]] = {
        "html": (b"<html>404 Not Found</html>", 422, {}),
        "half": (whole[: len(whole) // 2], 422, {}),
        "huge": (bytes(huge), 422, {}),
        "too_large": (b"\xff" * (MAX_BYTES + 1), 413, {}),
        "no_json": (b"{", 400, {"kind": "application/json"}),
        "address": (b'{"images": ["file:///etc/passwd"]}', 400, {"kind": "application/json"}),
        "no_boundary": (b"--x", 400, {"kind": "multipart/form-data"}),
        "compressed": (whole, 415, {"Content_Encoding": "gzip"}),
    }
    listed = []
    for name, (data, status, options) in files.items():
        (folder / name).write_bytes(data)
        listed.append(entry(folder / name, status=status, **options))
    return listed


def spread(good: list, bad: list, share: int) -> list:
    """``share`` of the bad ones evenly among the good, and that as often as all of them come."""
    rounds = max(1, -(-len(bad) // max(1, share)))
    chosen = [bad[i % len(bad)] for i in range(rounds * share)]
    mixed = good * rounds
    step = len(mixed) // max(1, len(chosen))
    for i, x in enumerate(chosen):
        mixed.insert(i * (step + 1), x)
    return mixed


def write_list(folder: Path, listed: list[dict[str, Any]]) -> None:
    folder.mkdir()
    (folder / "bodies.json").write_text(json.dumps(listed))


@contextlib.contextmanager
def server(args: argparse.Namespace) -> Iterator[str]:
    """The command; its address."""
    command = [sys.executable, "-W", "ignore", "-m", "nanodet_d2", "serve", f"m={args.model}"]
    options = {"port": 0, "workers": args.workers, "max-bytes": MAX_BYTES, "threshold": THRESHOLD}
    process = subprocess.Popen(
        [*command, *(f"--{name}={value}" for name, value in options.items())],
        env=common.environment(1),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            found = re.search(r"at (http://\S+)", line)
            if found:
                threading.Thread(target=process.stderr.read, daemon=True).start()
                yield found[1]
                break
        else:
            raise RuntimeError(f"the server ended with {process.wait()}")
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
    if code:
        raise RuntimeError(f"the server ended with {code}")


def clients(
    args: argparse.Namespace, bodies: Path, address: str, count: int, requests: int
) -> dict[str, Any]:
    """So many requests of so many clients: throughput, latencies, what was lost or wrong."""
    result = bodies / "result.json"
    result.unlink(missing_ok=True)
    settings = {
        "SERVING_BODIES": str(bodies),
        "SERVING_REQUESTS": str(requests),
        "SERVING_RESULT": str(result),
    }
    command = [args.locust, "-f", str(CLIENTS_FILE), "--headless", "--only-summary"]
    command += ["--users", str(count), "--spawn-rate", "1000", "--host", address]
    command += ["--run-time", str(60 + requests // SLOWEST), "--loglevel", "ERROR"]
    done = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True)
    if not result.exists():
        raise RuntimeError(f"{args.locust} failed: {done.stderr[-2000:]}")
    found = json.loads(result.read_text())
    seconds = sorted(found.pop("seconds"))
    return {
        "clients": count,
        "requests": requests,
        "per_second": len(seconds) / found["took"],
        "p50_ms": statistics.median(seconds) * 1e3,
        "p99_ms": seconds[int(0.99 * (len(seconds) - 1))] * 1e3,
        **found,
    }


def alone(args: argparse.Namespace, folder: Path) -> float:
    """Images per second of one detector in one process, with as many threads as the server has."""
    program = (
        "import sys, time, pathlib\nimport cv2\nfrom nanodet_d2.runtime import Detector\n"
        "from nanodet_d2.runtime.images import read_bytes\n"
        "model, threads, count, *paths = sys.argv[1:]\ncv2.setNumThreads(int(threads))\n"
        "detector = Detector(model, num_threads=int(threads), score_thresh=0.35)\n"
        "files = [pathlib.Path(x).read_bytes() for x in paths]\n"
        "detect = lambda i: detector(read_bytes(files[i % len(files)], 'x'))\n"
        "for i in range(10):\n    detect(i)\n"
        "begin = time.perf_counter()\nfor i in range(int(count)):\n    detect(i)\n"
        "print(int(count) / (time.perf_counter() - begin))"
    )
    paths = [str(folder / f"{i}.jpg") for i in range(args.pictures)]
    command = [sys.executable, "-c", program, args.model, str(args.workers), str(args.timed)]
    environment = common.environment(args.workers)
    done = subprocess.run([*command, *paths], env=environment, capture_output=True, check=True)
    return float(done.stdout)


def one_round(args: argparse.Namespace, folder: Path, address: str) -> dict[str, Any]:
    served = [clients(args, folder / "good", address, n, args.timed) for n in CLIENTS]
    for run in served:
        require_right(run)
    return {"alone": alone(args, folder), "served": served}


def require_right(run: dict[str, Any]) -> None:
    if run["lost"] or run["wrong"]:
        raise RuntimeError(f"{run['lost']} lost, {run['wrong']} wrong: {run['told']}")


def show_speed(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of the rounds, as a table."""
    own = statistics.median(x["alone"] for x in rounds)
    rows: list[list[Any]] = [["the detector alone", f"{own:.1f}", "", "", ""]]
    result: dict[str, Any] = {"alone": own}
    for i, count in enumerate(CLIENTS):
        runs = [x["served"][i] for x in rounds]
        share = statistics.median(x["served"][i]["per_second"] / x["alone"] for x in rounds)
        values = [statistics.median(x[k] for x in runs) for k in ("per_second", "p50_ms", "p99_ms")]
        rows.append([f"{count} clients", *(f"{x:.1f}" for x in values), f"{share:.2f}"])
        result[str(count)] = {"per_second": values[0], "share": share}
    common.show(common.table(rows, ["", "images/s", "p50 ms", "p99 ms", "of the detector's own"]))
    common.show(f"8 clients: {result['8']['share']:.2f} of the detector's own; bar {BAR}")
    return result


def run_mixed(args: argparse.Namespace, folder: Path, address: str) -> dict[str, Any]:
    """Good and hostile bodies; raises if an answer is lost or wrong, or memory grows."""
    memory: list[float] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.5):
            memory.append(resident(address))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        run = clients(args, folder / "mixed", address, 8, args.requests)
    finally:
        ended.set()
        watching.join()
    quarter = len(memory) // 4
    if not quarter:
        raise RuntimeError("too short to see the memory: give more --requests")
    before, after = (statistics.median(x) for x in (memory[quarter : 2 * quarter],
                                                    memory[3 * quarter :]))  # fmt: skip
    growth = after / before
    common.show(
        f"{args.requests} requests, {args.hostile:.0%} hostile: {run['lost']} lost, "
        f"{run['wrong']} wrong; memory {before / 1e6:.0f} MB in the second quarter, "
        f"{after / 1e6:.0f} MB in the last; bar {MAX_GROWTH} times"
    )
    require_right(run)
    if growth > MAX_GROWTH:
        raise RuntimeError(f"memory grew {growth:.2f} times")
    return {**run, "memory_bytes": memory, "growth": growth}


def resident(address: str) -> float:
    """Bytes of memory that the server has."""
    with urllib.request.urlopen(f"{address}/metrics", timeout=30) as answer:
        found = re.search(r"^process_resident_memory_bytes (\S+)$", answer.read().decode(), re.M)
    if found is None:
        raise RuntimeError("the server does not tell its memory; it does on Linux")
    return float(found[1])


if __name__ == "__main__":
    main()
