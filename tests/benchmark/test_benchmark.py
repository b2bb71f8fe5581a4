"""The comparison of runtimes: what is measured, what is left out, what is written."""

from __future__ import annotations

import itertools
import json
import types

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from tqdm import tqdm

from nanodet_d2 import cli
from nanodet_d2.benchmark import measure as measuring
from nanodet_d2.benchmark.command import benchmark, drawn_scene
from nanodet_d2.benchmark.models import Model, find_models
from nanodet_d2.benchmark.report import COLORS, plot, table
from nanodet_d2.config import apply_overrides
from nanodet_d2.export.job import Job
from nanodet_d2.export.loading import load_model
from nanodet_d2.export.writer import export
from nanodet_d2.runtime.backends import backends

CONFIG = "projects/nanodet_plus/configs/demo_shapes.py"


@pytest.fixture(scope="module")
def exported(root, shapes, shapes_overrides, tmp_path_factory):
    """A folder with an untrained detector as TorchScript, and files that cannot be read."""
    folder = tmp_path_factory.mktemp("exported")
    cfg = apply_overrides(LazyConfig.load(str(root / CONFIG)), shapes_overrides)
    torch.manual_seed(0)
    weights = str(tmp_path_factory.mktemp("weights") / "weights.pth")
    torch.save(instantiate(cfg.model).state_dict(), weights)
    loaded = load_model(
        str(root / CONFIG), weights, input_size=(64, 96), overrides=shapes_overrides
    )
    export(loaded, Job(("torchscript",), folder, verify=False))
    (folder / "broken.torchscript.pt").write_bytes(b"not a model")
    (folder / "other.param").write_bytes(b"")
    (folder / "readme.txt").write_text("no model")
    return folder


def test_a_folder_is_measured_and_scored(exported, shapes, tmp_path, caplog, capsys):
    output = tmp_path / "out"
    arguments = ["--rounds", "2", "--threads", "1", "--output", str(output)]
    data = ["--data", shapes["val"]["json"], "--images", shapes["val"]["images"]]
    numbers = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(2)
    cv2.setNumThreads(2)
    try:
        assert cli.main(["benchmark", str(exported), *arguments, *data]) == 0
        assert torch.get_num_threads() == cv2.getNumThreads() == 2
    finally:
        torch.set_num_threads(numbers[0])
        cv2.setNumThreads(numbers[1])

    content = json.loads((output / "runtimes.json").read_text())
    (model,) = content["models"]
    assert (model["file"], model["backend"]) == ("demo_shapes_64x96.torchscript.pt", "torchscript")
    assert (model["kind"], model["input"]) == ("raw", [64, 96])
    assert model["bytes"] == (exported / "demo_shapes_64x96.torchscript.pt").stat().st_size
    assert model["AP"] == 0  # untrained: nothing reaches the score threshold
    latency = model["latency"]["1"]
    for part in ("network", "total"):
        assert 0 < latency[part]["median_ms"] <= latency[part]["p90_ms"]
    assert latency["images_per_second"] > 0

    assert [x["file"] for x in content["skipped"]] == [
        "broken.torchscript.pt", "other.param"
    ]  # fmt: skip
    assert "Left out: other.param: " in caplog.text
    assert "| demo_shapes_64x96.torchscript.pt | torchscript | raw |" in capsys.readouterr().out
    assert cv2.imread(str(output / "runtimes.png")).shape[2] == 3


def test_a_model_of_other_origin_runs_beside_ours(shared, exported, tmp_path):
    pytest.importorskip("ncnn")
    names = [str(i) for i in range(80)]
    described = json.loads((exported / "demo_shapes_64x96.torchscript.json").read_text())
    described.update(class_names=names, outputs=["cls8", "dis8"])
    described["input"].update(height=416, width=416)
    (tmp_path / "official.json").write_text(json.dumps(described))
    official = shared / "weights/nanodet-plus-m_416.param"
    output = tmp_path / "out"
    status = cli.main(
        ["benchmark", str(exported), "--other", str(official), str(tmp_path / "official.json"),
         "--rounds", "1", "--threads", "1", "--output", str(output)]
    )  # fmt: skip
    models = json.loads((output / "runtimes.json").read_text())["models"]
    (found,) = [x for x in models if x["file"] == official.name]
    assert status == 0 and len(models) == 2 and found["backend"] == "ncnn"
    sizes = [official.with_suffix(suffix).stat().st_size for suffix in (".param", ".bin")]
    assert found["bytes"] == sum(sizes)
    assert "AP" not in found and not (output / "runtimes.png").exists()


class FakeDetector:
    def __init__(self, name, log, clock):
        self.name, self.log, self.clock = name, log, clock

    def prepare(self, images):
        return images[0]

    def run(self, data):
        self.log.append(self.name)
        self.clock.now += 0.001

    def __call__(self, image):
        self.clock.now += 0.003


def test_models_take_turns_and_the_first_call_of_a_block_is_not_counted(monkeypatch):
    clock, log = types.SimpleNamespace(now=0.0), []
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: clock.now)
    detectors = {name: FakeDetector(name, log, clock) for name in "abc"}
    rounds = 4
    found = measuring.measure(
        detectors, [np.zeros((2, 2, 3), np.uint8)], rounds=rounds, bar=tqdm(disable=True)
    )
    blocks = [log[i] for i in range(0, len(log), measuring.BLOCK)]
    assert len(log) == 3 * rounds * measuring.BLOCK
    assert all(sorted(blocks[i : i + 3]) == ["a", "b", "c"] for i in range(0, len(blocks), 3))
    assert len({tuple(blocks[i : i + 3]) for i in range(0, len(blocks), 3)}) > 1
    assert found["a"]["network"]["median_ms"] == pytest.approx(1)
    assert found["a"]["total"]["p90_ms"] == pytest.approx(3)
    assert found["a"]["images_per_second"] == pytest.approx(1000 / 3)


def test_the_first_call_is_left_out(monkeypatch):
    times = iter(np.cumsum([0, 9, *[0, 1] * (measuring.BLOCK - 1)]))
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: float(next(times)))
    assert measuring.block(print, itertools.repeat("")) == [1.0] * (measuring.BLOCK - 1)


def test_images_are_taken_in_turn(monkeypatch):
    given, taken = itertools.cycle("abc"), []
    assert len(measuring.block(taken.append, given, calls=5, warm_up=2)) == 3
    measuring.block(taken.append, given, calls=2)
    assert "".join(taken) == "abcabca"


def test_the_table_has_the_fastest_first():
    def facts(name, milliseconds):
        times = {"median_ms": milliseconds, "p90_ms": 2 * milliseconds}
        latency = {"network": times, "total": times, "images_per_second": 1000 / milliseconds}
        return {"file": name, "backend": "ncnn", "kind": "raw", "bytes": 2_500_000,
                "detections": 7, "latency": {"1": latency, "2": latency}}  # fmt: skip

    models = [Model(x, None, facts=facts(x, y)) for x, y in (("slow", 20.0), ("fast", 10.0))]
    models[0].facts["AP"] = 36.115
    lines = table(models).splitlines()
    fast = "| fast | ncnn | raw | 2.50 | – | 7 | 10.0 (20.0) | 10.0 (20.0) | 100.0"
    assert lines[2].startswith(fast)
    assert lines[3].startswith("| slow | ncnn | raw | 2.50 | 36.1")
    assert lines[0].count("threads") == 1 and lines[0].count("1 thread:") == 1


def test_file_names_are_not_read_as_formulas(tmp_path):
    facts = {"backend": "onnxruntime", "AP": 1.0, "latency": {"1": {"total": {"median_ms": 2.0}}}}
    plot([Model("a$_$b.onnx", None, facts=facts)], tmp_path / "plot.png")
    assert cv2.imread(str(tmp_path / "plot.png")) is not None


def test_each_backend_has_its_colour():
    assert {x.name for x in backends().values()} | {"pytorch"} <= COLORS.keys()


def test_what_is_measured_is_a_scene_with_something_to_find(exported, tmp_path):
    assert drawn_scene().shape == (640, 640, 3) and drawn_scene().std() > 10
    models = find_models(exported)[-2:-1]  # between those that cannot be read
    text, facts = benchmark(models, tmp_path, threads=(1,), rounds=1)
    assert facts == json.loads((tmp_path / "runtimes.json").read_text())
    assert facts["image"] == [640, 640] and facts["machine"] in text
    assert text == (tmp_path / "runtimes.md").read_text()


def test_what_cannot_be_measured_is_said(tmp_path, exported, caplog, capsys):
    def refused(*arguments: str) -> str:
        assert cli.main(["benchmark", *arguments, "--output", str(tmp_path / "out")]) == 2
        (line,) = capsys.readouterr().err.splitlines()[-1:]
        return line

    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no exported files in" in refused(str(empty))
    (empty / "a.onnx").write_bytes(b"no model")
    assert "none of the 1 files can be used" in refused(str(empty))
    assert "Left out: a.onnx" in caplog.text
    missing = refused(str(exported), "--other", "none.param", "none.json")
    assert "none.param not found" in missing
    script = exported / "demo_shapes_64x96.torchscript.pt"
    described = exported / "demo_shapes_64x96.torchscript.json"
    twice = refused(str(exported), "--other", str(script), str(described))
    assert "more than one model is called demo_shapes_64x96.torchscript.pt" in twice
    assert "--data a.json needs --images" in refused(str(exported), "--data", "a.json")
