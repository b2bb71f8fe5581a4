"""What is imported when, and what is said where torch or detectron2 is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest

import nanodet_d2
from nanodet_d2 import importing
from tests.blocking import run_without

CHECK = """
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY
assert META_ARCH_REGISTRY.get("NanoDetPlus").__module__.startswith("nanodet_d2.")
for name in ("ShuffleNetV2", "GhostNet", "TimmBackbone", "TorchvisionBackbone"):
    assert BACKBONE_REGISTRY.get(name).__module__.startswith("nanodet_d2."), name
"""


def run(program: str) -> subprocess.CompletedProcess:
    return run_without((), program)


@pytest.mark.parametrize(
    "imports",
    [
        "import nanodet_d2.runtime, detectron2.data\nfrom detectron2 import modeling",
        pytest.param("import detectron2.modeling, nanodet_d2", marks=pytest.mark.slow),
    ],
    ids=["before", "after"],
)
def test_registries_are_filled(imports):
    done = run(f"{imports}\n{CHECK}")
    assert done.returncode == 0, done.stderr


def test_importing_the_package_imports_nothing_heavy():
    done = run(
        "import nanodet_d2\n"
        "from nanodet_d2 import cli\n"
        "heavy = {'torch', 'detectron2', 'numpy', 'cv2', 'PIL', 'matplotlib', 'omegaconf'}\n"
        "print(sorted(heavy & set(sys.modules)), nanodet_d2.__version__)"
    )
    assert done.stdout.split() == ["[]", nanodet_d2.__version__], done.stderr


def test_the_runtime_imports_neither_torch_nor_detectron2():
    done = run(
        "import pkgutil, importlib, nanodet_d2.runtime as runtime\n"
        "for x in pkgutil.walk_packages(runtime.__path__, runtime.__name__ + '.'):\n"
        "    importlib.import_module(x.name)\n"
        "print(sorted({'torch', 'detectron2', 'PIL', 'onnxruntime', 'openvino', 'ncnn', 'tqdm'}"
        " & set(sys.modules)))"
    )
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("missing", [("detectron2",), ("torch",), ("torch", "detectron2")])
def test_the_sentence_names_what_is_missing(monkeypatch, missing):
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)
    sentence = importing.missing_sentence()
    assert f"needs {' and '.join(missing)}, not installed here" in sentence
    assert ("install torch and torchvision, then" in sentence) == ("torch" in missing)
    assert "\n" not in sentence and sentence.endswith("no package index carries detectron2")


REFUSED = """
import nanodet_d2
for name in ("engine", "export", "modeling", "data", "predictor", "benchmark", "doctor", "config"):
    try:
        __import__("nanodet_d2." + name)
    except ImportError as error:
        print(error.name, error)
try:
    nanodet_d2.Detector
except ImportError as error:
    print(error.name, error)
from nanodet_d2 import cli, runtime, zoo, get_detectron2, env
"""


def test_all_but_the_runtime_says_it():
    done = run_without(("detectron2",), REFUSED)
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and len(lines) == 9, done.stderr
    sentences = {line.partition(" ")[2] for line in lines}
    assert len(sentences) == 1 and "needs detectron2, not installed" in sentences.pop()
    assert lines[0].startswith("nanodet_d2.engine ")
    assert lines[-1].startswith("nanodet_d2.predictor ")


def test_the_package_has_no_other_names():
    assert nanodet_d2.Detector is not None
    with pytest.raises(AttributeError, match="module 'nanodet_d2' has no attribute 'Detectr'"):
        nanodet_d2.Detectr  # noqa: B018
