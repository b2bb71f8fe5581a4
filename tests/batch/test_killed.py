"""The command, killed at random and run again, by any number of processes or machines."""

from __future__ import annotations

import functools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from nanodet_d2.batch import Wish, detect_all
from nanodet_d2.data.shapes import draw_picture
from tests.batch.fake import Slow, contents, draw, work

PICTURES, BROKEN, SHARD = 300, 6, 8


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    import cv2

    folder = tmp_path_factory.mktemp("pictures")
    for i in range(PICTURES - BROKEN):
        (folder / f"{i % 7}").mkdir(exist_ok=True)
        cv2.imwrite(str(folder / f"{i % 7}/{i}.jpg"), draw_picture(i, "val", 0, 96)[0])
    whole = (folder / "0/0.jpg").read_bytes()
    broken = [b"", b"<html>", whole[: len(whole) // 2], whole[:2], b"II*\0", b"\x89PNG\r\n\x1a\n"]
    for i, data in enumerate(broken):
        (folder / f"{i}/broken{i}.jpg").write_bytes(data)
    return folder


def start(root, model, pictures, output, *options) -> subprocess.Popen:
    """The command in a process group of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "nanodet_d2", "batch", str(model)]
    command += [".", "--output", str(output), "--format", "coco", "--shard-size", str(SHARD)]
    return subprocess.Popen(
        [*command, "--threshold", "0.01", "--json", *options],
        cwd=pictures,
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def finish(process: subprocess.Popen) -> dict:
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, error.decode()
    return json.loads(out)


def require_end(group: int) -> None:
    """Wait until no process of a group is left; they need a moment to see that they are alone."""
    for _ in range(200):
        if not any(map(functools.partial(runs_in, group), psutil.pids())):
            return
        time.sleep(0.1)
    raise AssertionError("its processes did not end by themselves")


def runs_in(group: int, pid: int) -> bool:
    try:
        return os.getpgid(pid) == group and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False


def wait_for_shards(process: subprocess.Popen, output, count: int) -> None:
    while len(list(output.glob("shards/*.jsonl"))) < count:
        assert process.poll() is None, "it was over too early"
        time.sleep(0.005)


def kill_within(process: subprocess.Popen, output, shards: int) -> None:
    """Kill a run, but not its processes, when it has made so many shards more."""
    wait_for_shards(process, output, len(list(output.glob("shards/*.jsonl"))) + shards)
    process.kill()
    process.communicate()
    require_end(process.pid)


@pytest.mark.slow
def test_killed_runs_end_with_the_same_bytes(root, small_models, pictures, tmp_path):
    model = small_models.file("onnx")
    rng = random.Random(0)
    expected = None
    for workers in (1, 2, 3):
        for kills in (0, 3):
            output = tmp_path / f"{workers}-{kills}"
            options = ("--workers", str(workers))
            for _ in range(kills):
                process = start(root, model, pictures, output, *options)
                kill_within(process, output, rng.randrange(1, 7))
            facts = finish(start(root, model, pictures, output, *options))
            assert facts["pictures"] == PICTURES and facts["unreadable"] == BROKEN
            assert facts["computed"] < PICTURES if kills else facts["computed"] == PICTURES
            expected = expected or contents(output)
            assert contents(output) == expected
    assert expected is not None and facts["detections"] > PICTURES
    lines = [
        x for k, data in expected.items() if k.startswith("shards/") for x in data.split(b"\n")
    ]
    reasons = [x["error"] for x in map(json.loads, filter(None, lines)) if x["error"]]
    assert len(reasons) == BROKEN and all(reasons)


@pytest.mark.slow
def test_a_killed_process_costs_nothing(root, small_models, pictures, tmp_path):
    model = small_models.file("onnx")
    finish(start(root, model, pictures, tmp_path / "expected"))
    run = start(root, model, pictures, tmp_path / "hit", "--workers", "2")
    wait_for_shards(run, tmp_path / "hit", 3)
    children = psutil.Process(run.pid).children()
    victim, _ = (x for x in children if "spawn_main" in " ".join(x.cmdline()))
    victim.kill()
    assert finish(run)["unreadable"] == BROKEN
    assert contents(tmp_path / "hit") == contents(tmp_path / "expected")


@pytest.mark.slow
def test_ctrl_c_ends_all_and_the_next_run_goes_on(root, small_models, pictures, tmp_path):
    model = small_models.file("onnx")
    run = start(root, model, pictures, tmp_path / "out")
    wait_for_shards(run, tmp_path / "out", 3)
    os.killpg(run.pid, signal.SIGINT)
    _, error = run.communicate(timeout=60)
    assert run.returncode == 1 and b"nanodet-d2: interrupted" in error
    assert b"Traceback" not in error
    require_end(run.pid)
    assert finish(start(root, model, pictures, tmp_path / "out"))["computed"] < PICTURES


@pytest.fixture
def cluster(root, monkeypatch):
    """A Ray of two machines, with a processor each."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'nanodet-d2[ray]'")
    monkeypatch.setenv("PYTHONPATH", str(root))
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


@pytest.mark.slow
def test_a_cluster_that_loses_a_machine_makes_the_same(cluster, tmp_path, monkeypatch):
    import ray

    monkeypatch.chdir(tmp_path)
    for i in range(60):
        draw(tmp_path / f"photos/{i}.png", i)
    (tmp_path / "photos/broken.png").write_bytes(b"")

    def run(output, **options):
        wish = Wish(inputs=["photos"], output=tmp_path / output, shard_size=3, **options)
        return detect_all(work(Slow, tmp_path), wish)

    expected = run("expected", formats=["coco"], workers=2)
    second = cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address)
    cluster.wait_for_nodes()
    made = run("whole", formats=["coco"], engine="ray")
    assert {**made, "output": "", "files": ""} == {**expected, "output": "", "files": ""}
    assert contents(tmp_path / "whole") == contents(tmp_path / "expected")

    def lose() -> None:
        while len(list((tmp_path / "hit").glob("shards/*.jsonl"))) < 3:
            time.sleep(0.02)
        cluster.remove_node(second, allow_graceful=False)
        lost.set()

    lost = threading.Event()
    thread = threading.Thread(target=lose, daemon=True)
    thread.start()
    assert run("hit", formats=["coco"], engine="ray")["pictures"] == 61
    thread.join(60)
    assert lost.is_set() and sum(x["Alive"] for x in ray.nodes()) == 1
    assert contents(tmp_path / "hit") == contents(tmp_path / "expected")


@pytest.mark.slow
def test_what_is_wrong_on_a_cluster_is_told(cluster, tmp_path, monkeypatch):
    import ray

    ray.init(address=cluster.address)
    draw(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    wish = Wish(inputs=["a.png"], output=tmp_path / "out", engine="ray")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        detect_all(work(folder="nowhere"), wish)
