"""``nanodet-d2 ship`` from a checkpoint to the file and its kit."""

from __future__ import annotations

import json

import cv2
import pytest

from nanodet_d2 import cli
from nanodet_d2.conformance import check, read_kit, read_result
from nanodet_d2.runtime import Detector
from nanodet_d2.runtime.backends import backend_of
from nanodet_d2.shipping import making, measuring
from tests.small_models import require


@pytest.fixture
def command(small_models, shapes, tmp_path):
    """Runs it for the small model; returns the exit code."""
    recipe = small_models.recipe()

    def run(*arguments: str) -> int:
        data = ["--data", shapes["val"]["json"], "--images", shapes["val"]["images"]]
        own = [f"data.input_size=[{','.join(map(str, recipe.input_size))}]"]
        return cli.main(
            ["ship", recipe.config, "--weights", recipe.checkpoint, *data, "--threads", "1",
             "--rounds", "2", "--output", str(tmp_path / "out"), *arguments,
             *recipe.overrides, *own]
        )  # fmt: skip

    return run


@pytest.mark.slow
def test_the_smallest_file_is_shipped_with_its_kit(command, tmp_path, capsys, monkeypatch):
    arguments = ["--formats", "torchscript", "--sizes", "96x64", "64"]
    assert command(*arguments, "--max-ms", "10000", "--max-ap-drop", "100", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    names = {x["name"] for x in facts["measured"]}
    assert names == {"torchscript float32 96x64", "torchscript float32 64x64"}
    shipped = facts["shipped"]
    detector = Detector(shipped["file"])
    assert shipped["bytes"] == backend_of(shipped["file"]).size(shipped["file"])
    assert f"{detector.metadata.input.height}x{detector.metadata.input.width}" in shipped["name"]
    kit = read_kit(shipped["kit"])
    right = read_result(f"{shipped['kit']}/expected.json", kit.metadata,
                        [x.name for x in kit.pictures])  # fmt: skip
    assert check(kit, right).same
    assert cv2.imread(str(tmp_path / "out" / "ship.png")) is not None
    assert all(
        len(x["rounds"]) == 2
        for x in json.loads((tmp_path / "out" / "ship.json").read_text())["entries"].values()
    )

    # Once more, with a budget that is not met: nothing is made or scored again.
    monkeypatch.setattr(making, "export", None)
    monkeypatch.setattr(making, "average_precision", None)
    monkeypatch.setattr(measuring, "average_precision", None)
    assert command(*arguments, "--max-ms", "0.001") == 1
    said = capsys.readouterr().out
    assert "no candidate meets the budget: the fastest that loses at most 0.5 AP, torch" in said
    assert "too many; none takes at most 0.001 ms: the fastest, torchscript float32" in said


def test_what_cannot_be_made_is_left_out(command, capsys, monkeypatch):
    def broken(loaded, job):
        raise ValueError("the converter said no\nand more")

    monkeypatch.setattr(making, "export", broken)
    assert command("--formats", "torchscript", "--sizes", "64") == 2
    assert "no candidate could be written and run (torchscript float32 64x64: the converter said " \
           "no)" in capsys.readouterr().err  # fmt: skip


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--sizes", "64x"], "'64x'; allowed: 320, or 320x256"),
        (["--max-ms", "0"], "max_ms 0.0; allowed: above 0"),
        (["--rounds", "1"], "rounds 1; allowed: 2 or more"),
        (["--other", "x.onnx"], "1 --other, 0 --decoding: each needs one"),
        (["--other", "x.onnx", "--decoding", "yolo"], "decoding 'yolo'; allowed: deimv2, picodet"),
        (["--other", "x.onnx", "--decoding", "yolox"], "x.onnx not found"),
        (["--calibration", "nowhere"], "nowhere not found"),
        (["--formats", "tensorrt"], "no format can be measured on this machine (tensorrt: onnx"),
    ],
)
def test_what_is_asked_wrongly(command, capsys, arguments, words):
    assert command(*arguments) == 2
    assert words in capsys.readouterr().err


def test_a_data_set_is_needed(small_models, capsys):
    assert cli.main(["ship", "model_final.pth"]) == 2
    assert "--data is needed: AP is measured on it" in capsys.readouterr().err


@pytest.mark.slow
def test_formats_and_precisions_side_by_side(command, shapes, tmp_path, capsys):
    require("onnx", "onnxruntime", "openvino", "ncnn", "pnnx", "nncf")
    assert command(
        *("--formats", "onnx", "openvino", "ncnn", "torchscript", "tensorrt"),
        *("--sizes", "96x64", "64", "--calibration", shapes["train"]["images"]),
        *("--max-ap-drop", "100", "--json"),
    ) == 0  # fmt: skip
    facts = json.loads(capsys.readouterr().out)
    kinds = {tuple(x["name"].split()[:2]) for x in facts["measured"]}
    assert {("onnx", "float32"), ("openvino", "float16"), ("ncnn", "float16")} <= kinds
    assert "tensorrt" in facts["left_out"]
    smallest = min(x["bytes"] for x in facts["measured"])
    assert facts["shipped"]["bytes"] <= 1.02 * smallest
    assert (tmp_path / "out" / "ship.png").is_file()
