"""The GPU check: its rows and tables, how it judges, and that one part's end is not the others'."""

from __future__ import annotations

import argparse
import json
import math
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.scripts import load_script
from tests.wheels import ROOT

SCRIPT = ROOT / "projects" / "nanodet_plus" / "benchmarks" / "gpu_check.py"
gpu_check = load_script(SCRIPT)
Report, Row, Setting = gpu_check.Report, gpu_check.Row, gpu_check.Setting
equality, resume, speed = gpu_check.equality, gpu_check.resume, gpu_check.speed


@pytest.fixture
def report(tmp_path) -> Report:
    found = Report(tmp_path / "out" / "gpu.json")
    found.facts = {"device": "cpu"}
    found.write()
    return found


def test_rows_become_tables(report):
    report.add(Row("a step", "passed", "within 1e-5 | of 1").after(1.25))
    for line, column, text in (("float32", "32", "900"), ("float32", "64", "1000")):
        report.add(Row("…", "measured", text, ("images/s", line, column), {"rate": 1.0}))
    report.add(Row("…", "measured", "out of memory", ("images/s", "float16", "64")))
    expected = """\
- device: cpu

| check | outcome | finding | s |
| --- | --- | --- | --- |
| a step | passed | within 1e-5 \\| of 1 | 1.2 |

| images/s | 32 | 64 |
| --- | --- | --- |
| float32 | 900 | 1000 |
| float16 | – | out of memory |
"""
    assert report.path.with_suffix(".md").read_text() == expected
    again = Report(report.path)
    assert again.rows == report.rows and again.facts == report.facts
    assert again.count("measured") == 3
    assert not list(report.path.parent.glob("*.unfinished"))


def step(losses: dict, gradients: list[float]) -> equality.Step:
    return equality.Step(losses, torch.tensor(gradients, dtype=torch.float64))


@pytest.mark.parametrize(
    ("loss", "gradient", "outcome"),
    [
        (2.0, 3.0, "passed"),
        (2.0001, 3.002, "passed"),
        (2.001, 3.0, "failed"),
        (2.0, 3.01, "failed"),
        (math.nan, 3.0, "failed"),
        (2.0, math.nan, "failed"),
    ],
)
def test_a_step_is_judged_by_losses_and_gradients(loss, gradient, outcome):
    found = step({"loss_qfl": loss}, [gradient, 4.0])
    row = equality.compare("x", found, step({"loss_qfl": 2.0}, [3.0, 4.0]), (1e-4, 1e-3))
    assert row.outcome == outcome, row.finding


def test_a_loss_that_is_no_number_is_no_match_wherever_it_stands():
    for found in ([math.nan, 1.0], [1.0, math.nan], [1.0, math.inf]):
        assert not equality.largest_difference(found, [1.0, 1.0]) <= equality.DRIFT
    assert equality.largest_difference([1.0, 3.0], [1.0, 2.0]) == 0.5


def test_two_contents_differ_in_one_place():
    def content(value: float) -> dict:
        return {"model": {"w": torch.tensor([1.0, value])}, "list": [1, (math.nan, "x")]}

    difference = resume.first_difference
    assert difference(content(2.0), content(2.0)) == ""
    assert difference(content(2.0), content(2.5)) == ".model.w: by 5.0e-01"
    assert difference({"a": 1}, {"b": 1}) == ": keys ['a', 'b']"
    assert difference([1, 2], [1]) == ": 2 and 1 entries"
    assert difference({"a": [1, "x"]}, {"a": [1, "y"]}) == ".a[1]: x and y"
    assert difference(torch.zeros(2), torch.zeros(3)) == ": shapes (2,) and (3,)"


def test_repeated_pictures_are_others_with_the_same_boxes(shapes, tmp_path):
    setting = sys.modules["gpu.setting"]
    before = json.loads(Path(shapes["val"]["json"]).read_text())
    after = json.loads(setting.repeated(shapes["val"], 3, tmp_path / "x.json").read_text())
    for key in ("images", "annotations"):
        assert len(after[key]) == len({x["id"] for x in after[key]}) == 3 * len(before[key])
    names = {x["id"]: x["file_name"] for x in after["images"]}
    of_image = [names[x["image_id"]] for x in after["annotations"]]
    assert of_image == 3 * of_image[: len(before["annotations"])]
    assert after["categories"] == before["categories"]


def test_a_batch_beyond_32_repeats_its_images(tmp_path):
    setting = Setting("cpu", tmp_path, math.inf)
    batch = setting.batch(70)
    assert len(batch) == 70 and batch[69] is batch[5] and batch[0] is not batch[31]
    assert batch[0]["image"].shape == (3, 96, 96)


def test_without_time_nothing_is_begun(tmp_path):
    rows = list(speed.steps(Setting("cpu", tmp_path, time.monotonic())))
    assert {row.outcome for row in rows} == {"left out"}
    assert len(rows) == 8  # 4 modes, for float16 is for GPUs, of 2 batches


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_part_that_ends_or_hangs_is_a_row(report):
    gpu_check.supervise("fine", python("pass"), 30, report)
    assert not report.rows
    broken = python("import sys; print('why it is so'); sys.exit(3)")
    gpu_check.supervise("broken", broken, 30, report)
    begin = time.monotonic()
    gpu_check.supervise("stuck", python("import time; time.sleep(60)"), 0.6, report)
    assert time.monotonic() - begin < 20
    assert [row.name for row in report.rows] == ["the part broken", "the part stuck"]
    assert {row.outcome for row in report.rows} == {"failed"}
    assert report.rows[0].finding == "ended with 3: why it is so"
    assert report.rows[1].finding == "was ended after its 1 s; the log tells where"


def test_what_a_part_started_ends_with_it(report):
    with socket.create_server(("127.0.0.1", 0)) as server:
        child = "import socket, time\n"
        child += f"s = socket.create_connection({server.getsockname()!r})\n"
        child += "print(flush=True)\ntime.sleep(60)"
        code = "import subprocess, sys\n"  # which ends as soon as its child is there
        code += f"child = subprocess.Popen([sys.executable, '-c', {child!r}], stdout=-1)\n"
        code += "child.stdout.readline()"
        gpu_check.supervise("parent", python(code), 30, report)
        connection, _ = server.accept()
        with connection:
            connection.settimeout(10)
            assert connection.recv(1) == b""  # the other end is closed
    assert not report.rows


@pytest.mark.slow
def test_a_part_ends_by_itself(report):
    """Where nobody is left who would end it."""
    code = f"""
import argparse, pathlib, sys, time
sys.path.insert(0, {str(SCRIPT.parent)!r})
import gpu_check
gpu_check.END_S = 0
gpu_check.PARTS["equality"] = gpu_check.Part(1, (lambda setting: time.sleep(60),))
path = pathlib.Path({str(report.path)!r})
args = argparse.Namespace(part="equality", output=path, device="cpu", folder=path.parent)
args.threads, args.ends = 1, time.monotonic() + 0.2
gpu_check.run_part(args)
"""
    done = subprocess.run(
        python(code), env=gpu_check.common.environment(1), capture_output=True, text=True
    )
    assert done.returncode == 1 and "Timeout" in done.stderr and "run_part" in done.stderr


def test_a_check_that_raises_does_not_stop_the_next(report, tmp_path, monkeypatch):
    def fails_at_its_second(setting):
        yield Row("the first row", "passed", "")
        raise RuntimeError("CUDA error: unspecified\nand more")

    def works(setting):
        yield Row(f"on {setting.device}", "passed", "")

    part = gpu_check.Part(1, (fails_at_its_second, works))
    monkeypatch.setitem(gpu_check.PARTS, "equality", part)
    args = argparse.Namespace(part="equality", output=report.path, device="cpu", folder=tmp_path)
    args.ends, args.threads = time.monotonic() + 600, torch.get_num_threads()
    gpu_check.run_part(args)
    report.read()
    assert [(x.name, x.outcome) for x in report.rows] == [
        ("the first row", "passed"),
        ("equality: fails at its second", "failed"),
        ("on cpu", "passed"),
    ]
    assert report.rows[1].finding == "RuntimeError: CUDA error: unspecified"


def test_all_parts_share_the_time_and_a_failure_is_the_exit_status(tmp_path, monkeypatch, capsys):
    given: dict[str, float] = {}

    def supervise(name, command, seconds, report):
        given[name] = seconds
        assert command[-6:-4] == ["--part", name]
        gpu_check.add_row(report, Row(name, "failed" if name == "resume" else "passed", ""))

    monkeypatch.setattr(gpu_check, "supervise", supervise)
    monkeypatch.setattr(gpu_check, "draw", lambda *_: None)
    monkeypatch.setattr(gpu_check.common, "start", lambda *_: None)
    monkeypatch.setattr(gpu_check.signal, "signal", lambda *_: None)
    output = tmp_path / "gpu.json"
    for minutes, status in ((8.0, 1), (0.5, 0)):
        given.clear()
        args = argparse.Namespace(
            minutes=minutes, output=output, device="cpu", threads=1, only=None
        )
        assert gpu_check.check(args) == status
        if minutes == 8.0:
            assert list(given) == list(gpu_check.PARTS)
            assert given["equality"] == pytest.approx(48, abs=2)
            assert given["loader"] > 450  # what a part leaves goes to the later ones
    assert list(given) == ["compiled", "loader"]  # the others' shares are too short to begin
    assert "5 left out" in capsys.readouterr().out.splitlines()[-1]
    assert json.loads(output.read_text())["seconds"] >= 0


@pytest.mark.slow
def test_the_whole_check_on_a_cpu(tmp_path):
    """All of it but torch.compile, which takes minutes here."""
    # One thread: two that wait for each other get nowhere where other tests run beside them.
    output = tmp_path / "gpu.json"
    parts = [name for name in gpu_check.PARTS if name != "compiled"]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(SCRIPT), "--device", "cpu", "--threads", "1"]
        + ["--output", str(output), "--only", *parts],
        env=gpu_check.common.environment(1),
        capture_output=True,
        text=True,
    )
    log = output.with_suffix(".log")
    assert done.returncode == 0, done.stdout + done.stderr + log.read_text()[-3000:]
    found = Report(output)
    assert found.count("failed") == found.count("left out") == 0
    assert found.count("passed") >= 10
    titles = {row.cell[0] for row in found.rows if row.cell}
    assert titles == {"training on cpu, images/s", "inference on cpu, images/s"}
    assert all(row.figures["rate"] > 0 for row in found.rows if row.cell)
