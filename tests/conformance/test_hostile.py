"""A result that is none is refused in one line that names the thing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nanodet_d2 import cli
from nanodet_d2.conformance import read_kit, read_result, write_kit

NAMES = [f"picture_{i}.png" for i in range(3)]
NAN = float("nan")


@pytest.fixture(scope="module")
def kit(small_models, tmp_path_factory) -> Path:
    return write_kit(small_models.file("torchscript"), tmp_path_factory.mktemp("kit") / "small")


def of_all(**stages) -> str:
    return json.dumps({"pictures": {name: stages for name in NAMES}})


ROWS = "needed: [any number, 6]: x0, y0, x1, y1, score, class"
TENSOR = np.zeros((3, 96, 64)).tolist()
CASES = {
    "no json": ("{", "result.json is not json"),
    "deep": ("[" * 100_000, "result.json is not json"),
    "no object": ("[]", 'needed: {"pictures": {"picture_0.png": {…}, …}}'),
    "no pictures": ('{"pictures": []}', 'needed: {"pictures": {"picture_0.png": {…}, …}}'),
    "missing": (json.dumps({"pictures": {NAMES[1]: {"boxes": []}}}),
                "result.json lacks the kit's picture_0.png, picture_2.png"),
    "unknown": (json.dumps({"pictures": {"a\n.png": {}}}), r"no such picture in the kit: a\n.png"),
    "no stage": (of_all(), "picture_0.png has nothing; allowed: one or more of tensor, raw, cand"),
    "wrong stage": (of_all(tensr=[]), "picture_0.png has tensr; allowed: one or more of tensor"),
    "no stages": (json.dumps({"pictures": dict.fromkeys(NAMES, 3)}), "picture_0.png has no stages"),
    "shape": (of_all(tensor=[[1, 2], [3, 4]]),
              "picture_0.png: tensor has shape [2, 2]; needed: [3, 96, 64]"),
    "ragged": (of_all(tensor=[[1, 2], [3]]), "picture_0.png: tensor: lists of different lengths"),
    "text": (of_all(boxes=[["a"] * 6]), "picture_0.png: boxes: lists of different lengths, or"),
    "number": (of_all(boxes=5), "picture_0.png: boxes: 5; allowed: nested lists, the path of a"),
    "null": (of_all(boxes=[[None] * 6]), "boxes has 6 values that are not finite"),
    "five columns": (of_all(boxes=[[0] * 5]), f"picture_0.png: boxes has shape [1, 5]; {ROWS}"),
    "one row": (of_all(boxes=[0] * 6), f"picture_0.png: boxes has shape [6]; {ROWS}"),
    "NaN": (of_all(boxes=[[0] * 6, [0, 0, NAN, 0, 0, 0]]), "picture_0.png: boxes has 1 values that "
            "are not finite (NaN or infinite), the first at [1, 2]"),
    "too large": (of_all(boxes=[[10**400] * 6]), "boxes: lists of different lengths, or"),
    "infinite": (of_all(kept=[[0, 0, 0, 0, 0, float("inf")]]), "kept has 1 values that are not fi"),
    "no file": (of_all(tensor="t.npy"), "picture_0.png: tensor: file t.npy not found"),
    "zero byte": (of_all(tensor="t\0.npy"), r"picture_0.png: tensor: file t\x00.npy not found"),
    "folder": (of_all(tensor="."), "picture_0.png: tensor: file . not found"),
    "no npy": (of_all(tensor="junk.npy"), "picture_0.png: tensor: junk.npy is no .npy file"),
    "empty npy": (of_all(tensor="empty.npy"), "picture_0.png: tensor: empty.npy is no .npy file"),
    "pickle": (of_all(tensor="pickle.npy"), "picture_0.png: tensor: pickle.npy is no .npy file"),
    "words": (of_all(tensor="words.npy"), "words.npy has values of type <U1; needed: numbers"),
    "promises": (of_all(tensor="huge.npy"), "picture_0.png: tensor: huge.npy is no .npy file"),
    "bytes": (of_all(tensor={"file": "junk.npy", "shape": [3, 96, 64]}),
              "junk.npy has 9 bytes; needed: 73728, float32 of shape [3, 96, 64]"),
    "no shape": (of_all(tensor={"file": "junk.npy"}), 'needed: {"file": "tensor.bin", "shape": ['),
    "bad shape": (of_all(tensor={"file": "junk.npy", "shape": [-1]}), 'needed: {"file": "tensor'),
    "outputs": (of_all(raw={"cls8": []}), "picture_0.png: raw has cls8; needed: output"),
    "no outputs": (of_all(raw={}), "picture_0.png: raw has nothing; needed: output"),
    "raw shape": (of_all(raw=[[0.0]]), "picture_0.png: raw has shape [1, 1]; needed: [128, 39]"),
    "raw NaN": (of_all(raw={"output": [[[NAN] * 39] * 128]}),
                "picture_0.png: raw: output has 4992 values that are not finite"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_is_refused(kit, tmp_path, capsys, case):
    content, words = CASES[case]
    (tmp_path / "result.json").write_text(content)
    (tmp_path / "junk.npy").write_bytes(b"123456789")
    (tmp_path / "empty.npy").write_bytes(b"")
    np.save(tmp_path / "pickle.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "words.npy", np.array(["a"]))
    with open(tmp_path / "huge.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f8", "fortran_order": False, "shape": (10**9, 10**6)}
        )
    assert cli.main(["check", str(kit), str(tmp_path / "result.json")]) == 2
    out, error = capsys.readouterr()
    assert error.startswith("nanodet-d2 check: ") and error.count("\n") == 1 and not out
    assert words in error and len(error) < 600, error


@pytest.mark.parametrize("form", ["lists", "npy", "bin", "flat", "batch"])
def test_forms_of_an_array(kit, tmp_path, form):
    opened = read_kit(kit)
    result = {}
    for picture in opened.pictures:
        array = picture.stages["tensor"].astype(np.float32)
        stem = picture.name[:-4]
        np.save(tmp_path / f"{stem}.npy", array)
        array.tofile(tmp_path / f"{stem}.bin")
        np.save(tmp_path / f"{stem}.rows.npy", picture.stages["boxes"])
        tensor = {
            "lists": array.tolist(),
            "npy": f"{stem}.npy",
            "bin": {"file": f"{stem}.bin", "shape": [3, 96, 64]},
            "flat": array.ravel().tolist(),
            "batch": array[None].tolist(),
        }[form]
        result[picture.name] = {"tensor": tensor, "boxes": f"{stem}.rows.npy"}
    path = tmp_path / "result.json"
    path.write_text(json.dumps({"pictures": result}))
    for name, stages in read_result(path, opened.metadata, NAMES).items():
        (picture,) = [x for x in opened.pictures if x.name == name]
        for stage, array in stages.items():
            np.testing.assert_allclose(array, picture.stages[stage], rtol=1e-7)


def test_an_empty_npy_of_rows(kit, tmp_path):
    np.save(tmp_path / "none.npy", np.empty((0, 6), np.float32))
    (tmp_path / "result.json").write_text(of_all(boxes="none.npy"))
    found = read_result(tmp_path / "result.json", read_kit(kit).metadata, NAMES)
    assert found[NAMES[0]]["boxes"].shape == (0, 6)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"contract_version": 2}, "contract.json has contract_version 2; allowed: 1"),
        ({"input_pixel_offset": 0.5}, "contract.json has pixel_offset 0.5; allowed: 0.0"),
        ({"strides": []}, "contract.json has strides (); allowed: numbers above 0"),
        ({"input_mean": None}, "contract.json has mean None; allowed"),
        (None, "contract.json is not json"),
    ],
)
def test_a_damaged_contract_is_named(kit, tmp_path, capsys, change, words):
    folder = tmp_path / "kit"
    folder.mkdir()
    for path in kit.iterdir():
        (folder / path.name).symlink_to(path)
    contract = json.loads((kit / "contract.json").read_text())
    (folder / "contract.json").unlink()
    text = "{" if change is None else json.dumps({**contract, **change})
    (folder / "contract.json").write_text(text)
    assert cli.main(["check", str(folder), str(kit / "expected.json")]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
