"""The notebooks run from their first cell to the last, and are stored with what they show."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from nanodet_d2 import zoo
from tests.scripts import load_script
from tests.small_models import require

nbformat = pytest.importorskip("nbformat", reason="the notebooks' tools are of the extra dev")

FOLDER = Path(__file__).resolve().parents[2] / "projects" / "nanodet_plus" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def errors(notebook: Any) -> list[str]:
    """Of failed cells, and of failed commands, whose cells do not fail."""
    outputs = [x for cell in notebook.cells for x in cell.get("outputs", [])]
    told = [x.get("text", "") for x in outputs if x.output_type == "stream"]
    lines = [line for text in told for line in text.splitlines()]
    failed = [x["ename"] for x in outputs if x.output_type == "error"]
    return failed + [x for x in lines if re.match(r"Traceback|nanodet-d2[ \w]*: ", x)]


def test_there_are_some():
    assert len(NOTEBOOKS) == 3


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda x: x.stem)
def test_it_is_stored_with_what_it_shows(path):
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert errors(notebook) == []
    assert "/site-packages/" not in path.read_text()  # nor where it was run
    assert any("image/png" in x.get("data", {}) for cell in code for x in cell.outputs)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda x: x.stem)
def test_it_runs(path, shared, monkeypatch):
    require(
        "nbclient", "ipykernel", "ncnn", "pnnx", "onnx", "onnxruntime", "onnxscript", "onnxslim"
    )
    monkeypatch.setenv(zoo.FOLDER, str(shared / "weights"))
    notebook = load_script(FOLDER / "execute.py").execute(path)
    assert errors(notebook) == []
