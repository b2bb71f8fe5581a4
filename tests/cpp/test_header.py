"""The C++ header, with a network's outputs read from files in place of an engine."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from nanodet_d2.conformance import write_kit
from nanodet_d2.runtime.backends import backend_of
from nanodet_d2.runtime.checks import FIXED
from nanodet_d2.runtime.decode_numpy import candidates, suppress, vote
from nanodet_d2.runtime.metadata import ExportMetadata, InputDescription
from nanodet_d2.runtime.preprocess import prepare
from tests.cpp.programs import SOURCES, compile_replay, judge, pictures_of, run, write_outputs

KITS = [("onnx", "raw"), ("onnx", "decoded"), ("ncnn", "raw")]


@pytest.fixture(scope="module")
def replay(tmp_path_factory) -> Path:
    return compile_replay(tmp_path_factory.mktemp("cpp"), "-O1")


@pytest.fixture(scope="module")
def kits(small_models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kits")
    made: dict[tuple[str, str], Path] = {}

    def kit(format: str, kind: str) -> Path:
        if (format, kind) not in made:
            model = small_models.file(format, kind=kind)
            made[format, kind] = write_kit(model, folder / f"{format}_{kind}")
        return made[format, kind]

    return kit


@pytest.mark.parametrize("format, kind", KITS)
def test_it_passes_the_kit(replay, kits, tmp_path, format, kind):
    """All stages, in the three forms that outputs have; boxes within the check's own limits."""
    passes(replay, kits(format, kind), tmp_path)


def passes(replay: Path, kit: Path, folder: Path) -> None:
    pictures = {}
    for path in sorted(kit.glob("*.ppm")):
        outputs = write_outputs(kit, path.stem, folder / path.stem)
        done = run(replay, outputs, kit / "contract.json", path, "--stages", folder)
        pictures |= pictures_of(done)
    report = judge(kit, pictures, folder)
    assert report.same, report.sentence
    assert list(report.checked) == ["tensor", "raw", "boxes"]
    assert max(report.checked.values()) < 1e-3
    assert all(len(x["boxes"]) > 5 for x in pictures.values())


@pytest.mark.parametrize("format, kind", KITS)
def test_it_passes_the_kit_of_a_model_that_keeps_proportions(
    replay, small_models, tmp_path, format, kind
):
    """With priors in the middle of their cells, as those models have them."""
    model = small_models.file(format, kind=kind)
    facts = json.loads(backend_of(model).metadata_path(model).read_text())
    facts |= {"prior_offset": 0.5, "input": {**facts["input"], "resize": "fit"}}
    (tmp_path / "facts.json").write_text(json.dumps(facts))
    passes(replay, write_kit(model, tmp_path / "kit", metadata=tmp_path / "facts.json"), tmp_path)


def changed(kit: Path, target: Path, **fields) -> Path:
    """A kit's contract with other fields; None leaves a field out."""
    content = json.loads((kit / "contract.json").read_text()) | fields
    target.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
    return target


@pytest.mark.parametrize("resize", ["stretch", "fit"])
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (37, 3), (96, 64), (500, 333), (199, 450)])
def test_pictures_of_any_size(replay, kits, tmp_path, size, resize):
    """The input is that of the runtime, to the last grey level, RGB as well."""
    kit = kits("onnx", "raw")
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    picture = tmp_path / "picture_0.ppm"
    cv2.imwrite(str(picture), image)
    outputs = write_outputs(kit, "picture_0", tmp_path / "outputs")
    for order in ("BGR", "RGB"):
        given = {"mean": [10.5, 20.0, 30.25], "std": [50.0, 60.5, 70.0]}
        fields = {f"input_{key}": value for key, value in given.items()}
        fields |= {"input_channel_order": order, "input_resize": resize}
        contract = changed(kit, tmp_path / "contract.json", **fields)
        pictures_of(run(replay, outputs, contract, picture, "--stages", tmp_path))
        colours = tuple(given["mean"]), tuple(given["std"])
        x = InputDescription("data", 96, 64, False, order, *colours, resize=resize)
        found = np.fromfile(tmp_path / "picture_0.ppm.tensor.bin", "<f4").reshape(3, 96, 64)
        np.testing.assert_allclose(found, prepare(image, x), atol=1e-5)


@pytest.mark.parametrize("nms", ["plain", "voting"])
def test_ties_limits_and_empty_boxes(replay, kits, tmp_path, nms):
    """Over random outputs with many equal scores, as the NumPy port has it."""
    kit = kits("onnx", "decoded")
    contract = json.loads((kit / "contract.json").read_text())
    classes, priors = len(contract["class_names"]), contract["output_shapes"][0][1]
    generator = np.random.default_rng(1)
    for case in range(8):
        corners = generator.integers(0, 60, (priors, 4)).astype(np.float32)
        corners[:, 2:] = corners[:, :2] + generator.integers(-3, 20, (priors, 2))
        scores = (generator.integers(0, 8, (priors, classes)) / 10).astype(np.float32)
        if case == 0:
            scores[:] = 0  # nothing is found
        folder = tmp_path / str(case)
        folder.mkdir()
        corners.tofile(folder / "0.bin")
        scores.tofile(folder / "1.bin")
        limit = int(generator.integers(1, 200))
        power = (8.0, 1.0, 0.5)[case % 3]
        written = None if power == 1 else power  # as in contracts from before it was there
        fields = dict(max_detections=limit, score_threshold=0.45, nms=nms, vote_power=written)
        path = changed(kit, folder / "contract.json", **fields)
        done = run(replay, folder, path, kit / "picture_0.ppm")
        (found,) = pictures_of(done).values()
        boxes, best, labels = candidates(scores, corners, 0.45)
        kept = suppress(boxes, labels, contract["nms_threshold"], limit)
        moved = boxes[kept]
        if nms == "voting" and kept:
            thresholds = (contract[f"{x}_threshold"] for x in ("nms", "vote"))
            moved = vote(boxes, best, labels, kept, *thresholds, power, len(kept) == limit)
        image = cv2.imread(str(kit / "picture_0.png"))
        scale = np.tile([image.shape[1] / 64, image.shape[0] / 96], 2).astype(np.float32)
        most = np.tile([image.shape[1], image.shape[0]], 2)
        whole = (moved[:, 2:] > moved[:, :2]).all(axis=1)
        kept = np.array(kept, dtype=int)[whole]
        expected = np.clip(moved[whole] * scale, 0, most)
        rows = np.array(found["boxes"], dtype=np.float32).reshape(-1, 6)
        np.testing.assert_allclose(rows[:, :4], expected, atol=1e-3)
        np.testing.assert_allclose(rows[:, 4], best[kept], atol=1e-6)
        assert rows[:, 5].astype(int).tolist() == labels[kept].tolist()


REFUSED = {
    "no version": (dict(contract_version=None), "lacks contract_version"),
    "other version": (dict(contract_version=2), "another contract_version; allowed: 1 to 1"),
    "letterbox": (
        dict(input_resize="letterbox"),
        "has input_resize letterbox; allowed: stretch, fit",
    ),
    "half-pixel centres": (dict(input_pixel_offset=0.5), "another input_pixel_offset"),
    "across classes": (dict(nms_scope="all"), "has nms_scope all; allowed: class"),
    "end2end": (dict(kind="end2end"), "has kind end2end; allowed: raw, decoded"),
    "priors elsewhere": (dict(prior_offset=2), "another prior_offset; allowed: 0 to 1"),
    "no classes": (dict(class_names=[]), "has no class_names"),
    "a number for a text": (dict(input_name=3), "another input_name; allowed: a text"),
    "a stride of 0": (dict(strides=[0, 16]), "another strides; allowed: 1 to 1024"),
    "half a stride": (dict(strides=[8.5, 16]), "another strides; allowed: whole numbers"),
    "deviation 0": (dict(input_std=[1, 0, 1]), "another input_std; allowed: numbers above 0"),
    "two means": (dict(input_mean=[1, 2]), "another input_mean; allowed: three numbers"),
    "too high": (dict(input_height=10**9), "another input_height; allowed: 1 to 8192"),
    "other bins": (dict(reg_max=8), "has output_shapes that do not follow"),
}


@pytest.mark.parametrize("fields, message", REFUSED.values(), ids=REFUSED)
def test_another_contract_is_refused(replay, kits, tmp_path, fields, message):
    kit = kits("onnx", "raw")
    contract = changed(kit, tmp_path / "contract.json", **fields)
    done = run(replay, tmp_path, contract, kit / "picture_0.ppm")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"nanodet_replay: {contract} ") and message in done.stderr
    assert done.stderr.count("\n") == 1


def test_names_in_any_script(replay, kits, tmp_path):
    kit = kits("onnx", "raw")
    names = ['a "b"\\', "été", "猫", "😀"]
    content = json.loads((kit / "contract.json").read_text())
    names += content["class_names"]
    contract = changed(kit, tmp_path / "c.json", class_names=names[: len(content["class_names"])])
    outputs = write_outputs(kit, "picture_0", tmp_path / "outputs")
    done = run(replay, outputs, contract, kit / "picture_0.ppm")
    assert json.loads(done.stdout)["class_names"] == names[: len(content["class_names"])]


def test_the_command_explains_itself(replay):
    done = run(replay, "--help")
    assert done.returncode == 0 and "MODEL CONTRACT PICTURE" in done.stdout
    assert run(replay).returncode == 2
    for arguments, message in [
        (["a", "b", "c", "--threads", "0"], "--threads 0; allowed: 1 or more"),
        (["a", "b", "c", "--fast"], "unknown option --fast; allowed: --threads, --stages, --rep"),
        (["a", "b", "c", "--repeat"], "--repeat lacks its value"),
        (["a", "b"], "needed: MODEL CONTRACT PICTURE..."),
        (["a", "b", "c"], "b cannot be read"),
    ]:
        done = run(replay, *arguments)
        assert (done.returncode, done.stdout) == (2, "") and message in done.stderr


def test_it_tells_how_long_it_takes(replay, kits, tmp_path):
    kit = kits("onnx", "raw")
    outputs = write_outputs(kit, "picture_0", tmp_path / "outputs")
    done = run(replay, outputs, kit / "contract.json", kit / "picture_0.ppm", "--repeat", "3")
    said = json.loads(done.stdout)
    assert 0 <= said["network_ms"] < said["image_to_boxes_ms"]


def test_every_rule_of_the_contract_is_looked_at(kits):
    """A rule that is added to the contract has to be added to the header, too."""
    known = set(re.findall(r'"(\w+)"', (SOURCES / "contract.hpp").read_text()))
    rules = {x.name for x in dataclasses.fields(ExportMetadata) if x.metadata.get(FIXED)}
    rules |= {
        f"input_{x.name}" for x in dataclasses.fields(InputDescription) if x.metadata.get(FIXED)
    }
    assert len(rules) > 15 and rules <= known
