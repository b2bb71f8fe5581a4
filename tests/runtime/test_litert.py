"""How LiteRT is fed, with an interpreter that writes down what it gets."""

from __future__ import annotations

import sys
import types
import zipfile

import numpy as np
import pytest

from nanodet_d2.runtime.backends import open_backend
from nanodet_d2.runtime.backends.litert import METADATA_FILE, LiteRt


class Interpreter:
    """One input of a shape, and an output that is the input's mean for each channel."""

    shape = (1, 4, 6, 3)

    def __init__(self, path, num_threads=None):
        self.threads = num_threads

    def allocate_tensors(self):
        pass

    def get_input_details(self):
        return [{"index": 7, "shape": np.array(self.shape)}]

    def get_output_details(self):
        return [{"index": 9}]

    def set_tensor(self, index, data):
        assert index == 7 and data.shape == self.shape and data.flags["C_CONTIGUOUS"]
        self.data = data

    def invoke(self):
        axis = (1, 2) if self.shape[-1] == 3 else (2, 3)
        self.output = self.data.mean(axis=axis)

    def get_tensor(self, index):
        assert index == 9
        return self.output


@pytest.fixture(autouse=True)
def engine(monkeypatch):
    package, module = types.ModuleType("ai_edge_litert"), types.ModuleType("interpreter")
    package.__spec__ = types.SimpleNamespace(name="ai_edge_litert")
    module.Interpreter = Interpreter
    monkeypatch.setitem(sys.modules, "ai_edge_litert", package)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", module)


@pytest.mark.parametrize("shape", [(1, 4, 6, 3), (1, 3, 4, 6)])
def test_images_are_turned_as_the_file_wants_them(tmp_path, monkeypatch, shape):
    monkeypatch.setattr(Interpreter, "shape", shape)
    path = tmp_path / "m.tflite"
    path.write_bytes(b"a model")
    data = np.random.default_rng(0).normal(size=(1, 3, 4, 6)).astype(np.float32)
    runtime = open_backend(path, num_threads=2)
    assert isinstance(runtime, LiteRt) and runtime.interpreter.threads == 2
    (found,) = runtime(data)
    np.testing.assert_allclose(found, data.mean(axis=(2, 3)), rtol=1e-5)
    assert runtime.embedded is None


def test_metadata_lie_behind_the_model(tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(b"a model")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("labels.txt", "of another program")
    assert open_backend(path).embedded is None
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(METADATA_FILE, '{"name": "é"}')
    assert open_backend(path).embedded == '{"name": "é"}'
    assert path.read_bytes().startswith(b"a model")
