"""Kits of all formats and kinds, and what their contract says."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from nanodet_d2 import cli
from nanodet_d2.conformance import check, read_kit, read_result, write_kit
from nanodet_d2.conformance.contract import read_contract
from nanodet_d2.conformance.pictures import choose_pictures, draw
from nanodet_d2.conformance.stages import STAGES
from nanodet_d2.runtime import Detector
from nanodet_d2.runtime.backends import backend_of, open_backend
from tests.blocking import run_without
from tests.runtime.test_alone import BLOCKED

FILES = [
    *(("onnx", "raw"), ("torchscript", "raw")),
    *(pytest.param(*x, marks=pytest.mark.slow) for x in (
        ("ncnn", "raw"),
        ("onnx", "decoded"), ("onnx", "end2end"),
        ("openvino", "raw"), ("openvino", "decoded"), ("openvino", "end2end"),
        ("torchscript", "decoded"),
    )),
]  # fmt: skip


def expected_of(folder: Path) -> dict:
    return json.loads((folder / "expected.json").read_text())


def judge(folder: Path, result: dict):
    kit = read_kit(folder)
    path = folder / "result.json"
    path.write_text(json.dumps(result))
    return check(kit, read_result(path, kit.metadata, [x.name for x in kit.pictures]))


@pytest.mark.parametrize("format, kind", FILES, ids=lambda x: x)
def test_a_kit_of_each_format_and_kind(small_models, tmp_path, format, kind):
    model = small_models.file(format, kind=kind)
    folder = write_kit(model, tmp_path / "kit")
    detector = Detector(model, num_threads=1)
    kit = read_kit(folder)
    stages = ("boxes",) if kind == "end2end" else STAGES
    for picture in kit.pictures:
        found = detector(picture.image)
        assert len(found) > 5
        boxes = picture.stages["boxes"]
        np.testing.assert_allclose(boxes[:, :4], found.xyxy, atol=1e-3)
        np.testing.assert_allclose(boxes[:, 4], found.confidence, atol=1e-6)
        assert boxes[:, 5].tolist() == found.class_id.tolist()
        assert tuple(picture.stages) == stages
        arrays = {x.name.split(".")[1] for x in folder.glob(f"{Path(picture.name).stem}.*.npy")}
        assert arrays == set(stages)
    shapes = [x.image.shape[:2] for x in kit.pictures]
    assert any(h < w for h, w in shapes) and any(h > w for h, w in shapes)
    assert not any(h == w for h, w in shapes)
    report = judge(folder, expected_of(folder))
    assert report.same and tuple(report.checked) == stages
    assert report.checked["boxes"] < 1e-5


@pytest.mark.parametrize("format, kind", FILES, ids=lambda x: x)
def test_the_contract_describes_the_outputs(small_models, tmp_path, format, kind):
    """Their names, shapes and axes are those that the engine has."""
    model = small_models.file(format, kind=kind)
    folder = write_kit(model, tmp_path / "kit")
    contract = json.loads((folder / "contract.json").read_text())
    assert contract["contract_version"] == 1
    assert (contract["format"], contract["kind"], contract["file"]) == (format, kind, model.name)
    # of 96 x 64 pixels
    letters = dict(N=1, C=7, P=12 * 8 + 6 * 4 + 3 * 2 + 2 * 1, R=7, K=-1, H8=12, W8=8, H16=6, W16=4,
                   H32=3, W32=2, H64=2, W64=1)  # fmt: skip
    for words, shape in zip(contract["output_axes"], contract["output_shapes"]):
        assert [eval(x, {}, letters) for x in words.split(",")] == shape
    backend = open_backend(model, num_threads=1)
    tensor = np.load(folder / "picture_0.tensor.npy")[None] if kind != "end2end" else None
    if format == "ncnn":
        blobs = backend.blobs(tensor[0])
        assert {k: list(v.shape) for k, v in blobs.items()} == dict(
            zip(contract["outputs"], contract["output_shapes"])
        )
        for name, blob in blobs.items():
            np.testing.assert_allclose(
                np.load(folder / f"picture_0.raw.{name}.npy"), blob, atol=1e-5
            )
    elif kind != "end2end":
        for name, shape, array in zip(
            contract["outputs"], contract["output_shapes"], backend(tensor)
        ):
            assert list(array.shape) == shape
            saved = np.load(folder / f"picture_0.raw.{name}.npy")
            np.testing.assert_allclose(saved, array, atol=1e-5)
    assert not any(isinstance(value, dict) for value in contract.values())  # flat


def test_a_contract_is_the_metadata(small_models, tmp_path):
    model = small_models.file("torchscript")
    folder = write_kit(model, tmp_path / "kit")
    found, own = read_contract(folder / "contract.json"), Detector(model).metadata
    assert found.versions == {} and {**vars(found), "versions": own.versions} == vars(own)


def test_each_field_of_the_contract_is_documented(small_models, tmp_path, root):
    folder = write_kit(small_models.file("torchscript"), tmp_path / "kit")
    contract = json.loads((folder / "contract.json").read_text())
    told = (root / "docs" / "ports.md").read_text(encoding="utf-8")
    assert not [name for name in contract if f"`{name}`" not in told]


def test_outputs_that_somebody_has_described_otherwise_are_refused(small_models, tmp_path):
    model = small_models.file("ncnn")
    facts = {**json.loads(backend_of(model).metadata_path(model).read_text())}
    facts |= {"outputs": ["cls8", "dis8"], "output_axes": []}
    (tmp_path / "facts.json").write_text(json.dumps(facts))
    with pytest.raises(ValueError, match="has outputs cls8, dis8; needed for kind raw: all of"):
        write_kit(model, tmp_path / "kit", metadata=tmp_path / "facts.json")
    assert not (tmp_path / "kit").exists()


def test_mistakes_with_split_outputs_are_named(small_models, tmp_path):
    folder = write_kit(small_models.file("ncnn"), tmp_path / "kit")
    right = expected_of(folder)
    for name, stages in right["pictures"].items():
        stages.clear()
        for level in (8, 16, 32, 64):
            scores = np.load(folder / f"{name[:-4]}.raw.cls{level}.npy")
            logits = np.load(folder / f"{name[:-4]}.raw.dis{level}.npy")
            stages.setdefault("raw", {})[f"cls{level}"] = scores.transpose(1, 2, 0).tolist()
            stages["raw"][f"dis{level}"] = logits.tolist()
    assert judge(folder, right).finding == "raw: scores of a level are HWC in place of CHW"


@pytest.mark.slow
def test_mistakes_with_decoded_outputs_are_named(small_models, tmp_path):
    folder = write_kit(small_models.file("onnx", kind="decoded"), tmp_path / "kit")
    result = expected_of(folder)
    for name, stages in result["pictures"].items():
        boxes = np.load(folder / f"{name[:-4]}.raw.boxes.npy")
        scores = np.load(folder / f"{name[:-4]}.raw.scores.npy")
        stages.clear()
        stages["raw"] = {"boxes": boxes.tolist(), "scores": (1 / (1 + np.exp(-scores))).tolist()}
    report = judge(folder, result)
    assert report.finding == "raw: sigmoid applied twice" and ", score of '" in report.sentence


@pytest.mark.slow
@pytest.mark.parametrize(
    "change, words",
    [
        (lambda rows, fx, fy: rows[:, [1, 0, 3, 2, 4, 5]], "boxes: YXYX in place of XYXY"),
        (lambda rows, fx, fy: rows / [fx, fy, fx, fy, 1, 1],
         "boxes: in input pixels, not in image pixels"),
        (lambda rows, fx, fy: rows - [0, 0, 0, 0, 0, 1], "classes: shifted by one, one too low"),
        (lambda rows, fx, fy: rows[rows[:, 4] > 0.15], "threshold: scores from about 0.15"),
    ],
)  # fmt: skip
def test_mistakes_with_an_end2end_file_are_named(small_models, tmp_path, change, words):
    folder = write_kit(small_models.file("onnx", kind="end2end"), tmp_path / "kit")
    result = expected_of(folder)
    for name, stages in result["pictures"].items():
        height, width = cv2.imread(str(folder / name)).shape[:2]
        stages["boxes"] = change(np.array(stages["boxes"]), width / 64, height / 96).tolist()
    assert judge(folder, result).finding.startswith(words)


def test_given_pictures(tmp_path, caplog):
    for name, size in {"a": (30, 30), "b": (50, 40), "c": (20, 20), "d": (40, 50)}.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), draw(0, *size))
    chosen = choose_pictures([tmp_path], 96, 64)
    assert [x.shape[:2] for x in chosen.values()] == [(40, 50), (50, 40), (30, 30)]
    assert list(chosen) == ["picture_0.png", "picture_1.png", "picture_2.png"] and not caplog.text
    assert len(choose_pictures([tmp_path / "a.png"], 96, 64)) == 1
    assert "no picture is wider than high" in caplog.text


def test_an_earlier_kit_is_replaced_and_nothing_else(small_models, tmp_path, caplog):
    model = small_models.file("torchscript")
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((30, 40, 3), 120, np.uint8))
    folder = write_kit(model, tmp_path / "kit")
    (folder / "my_notes.txt").write_text("kept")
    write_kit(model, folder, images=[tmp_path / "grey.png"])
    assert len(list(folder.glob("*.png"))) == 1 and (folder / "my_notes.txt").is_file()
    assert judge(folder, expected_of(folder)).same
    other = tmp_path / "photos"
    other.mkdir()
    (other / "a.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match="photos is there and holds something else than a kit"):
        write_kit(model, other)
    assert [x.name for x in other.iterdir()] == ["a.jpg"]


COMMANDS = """
from nanodet_d2.cli import main
codes = [main(["kit", sys.argv[1], "--output", "kit"]),
         main(["check", "kit", "kit/expected.json"]),
         main(["check", "kit", "wrong.json", "--json"])]
there = {"torch", "detectron2"} & {name for name, module in sys.modules.items() if module}
sys.exit(f"imported {there}" if there else 0 if codes == [0, 0, 1] else f"codes {codes}")
"""


def test_the_commands_need_no_torch(small_models, tmp_path):
    model = small_models.file("onnx")
    names = [f"picture_{i}.png" for i in range(3)]
    wrong = {"pictures": {name: {"boxes": []} for name in names}}
    (tmp_path / "wrong.json").write_text(json.dumps(wrong))
    done = run_without(BLOCKED, COMMANDS, str(model), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "boxes: same (largest difference" in done.stdout
    facts = json.loads(done.stdout[done.stdout.index("{") :])
    assert facts["stage"] == "boxes" and not facts["same"]
    assert sorted(facts["pictures"]) == names


def test_exit_codes_and_words(small_models, tmp_path, capsys):
    model = small_models.file("torchscript")
    assert cli.main(["kit", str(model), "--output", str(tmp_path / "kit")]) == 0
    capsys.readouterr()
    assert cli.main(["check", str(tmp_path / "kit"), str(tmp_path / "kit/expected.json")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "boxes: same (largest difference 0)"
    assert cli.main(["check", str(tmp_path / "kit"), str(tmp_path / "nothing.json")]) == 2
    assert capsys.readouterr().err == f"nanodet-d2 check: {tmp_path}/nothing.json not found\n"
    assert cli.main(["check", str(tmp_path), "x.json"]) == 2
    assert f"{tmp_path} is no kit: it has no contract.json" in capsys.readouterr().err
