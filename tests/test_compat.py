"""compat: names for detectron2 0.6, and which compiled operators there are."""

import sys
import types

import pytest

from nanodet_d2 import compat

OLD = {
    "data/transforms/transform.py": "def extent(interp=Image.LINEAR): ...\n",
    "data/build.py": "histogram = np.zeros((1,), dtype=np.int)\n",
}
NEW = {
    "data/transforms/transform.py": "def extent(interp=Image.BILINEAR): ...\n",
    "data/build.py": "histogram = np.zeros((1,), dtype=int)\n",
}


def write(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture
def bare(monkeypatch):
    """Stands for Pillow and NumPy of today, wherever the tests run."""
    pil = types.ModuleType("PIL")
    pil.Image = types.SimpleNamespace(BILINEAR=2)
    numpy = types.ModuleType("numpy")
    numpy.bool = numpy_bool = type("bool", (), {})
    monkeypatch.setitem(sys.modules, "PIL", pil)
    monkeypatch.setitem(sys.modules, "numpy", numpy)
    return types.SimpleNamespace(image=pil.Image, numpy=numpy, numpy_bool=numpy_bool)


def test_the_names_06_spells_are_supplied_once(bare, tmp_path, monkeypatch):
    monkeypatch.setattr(compat, "_detectron2_folder", lambda: write(tmp_path, OLD))
    supplied = compat.prepare_for_detectron2()
    assert supplied == ["PIL.Image.LINEAR", "numpy.float", "numpy.int", "numpy.str"]
    assert bare.image.LINEAR == bare.image.BILINEAR
    assert (bare.numpy.int, bare.numpy.float, bare.numpy.str) == (int, float, str)
    assert bare.numpy.bool is bare.numpy_bool  # NumPy 2 has its own
    assert compat.prepare_for_detectron2() == []


@pytest.mark.parametrize("files", [NEW, {}], ids=["main", "another layout"])
def test_main_gets_nothing(bare, tmp_path, monkeypatch, files):
    monkeypatch.setattr(compat, "_detectron2_folder", lambda: write(tmp_path, files))
    assert compat.prepare_for_detectron2() == []
    assert vars(bare.image) == {"BILINEAR": 2} and not hasattr(bare.numpy, "int")


def test_without_detectron2_nothing_happens(bare, monkeypatch):
    monkeypatch.setattr(compat, "_detectron2_folder", lambda: None)
    assert compat.prepare_for_detectron2() == []


def test_the_folder_is_found_without_an_import(tmp_path, monkeypatch):
    package = write(tmp_path / "detectron2", {"__init__.py": "raise RuntimeError('imported')\n"})
    monkeypatch.delitem(sys.modules, "detectron2", raising=False)
    monkeypatch.setattr(compat.importlib.util, "find_spec", find_in(tmp_path))
    assert compat._detectron2_folder() == package


def find_in(folder):
    from importlib.machinery import PathFinder

    return lambda name: PathFinder.find_spec(name, [str(folder)])


@pytest.mark.parametrize(
    ("file", "operators", "expected"),
    [
        ("_C.cpython-311-x86_64-linux-gnu.so", {"COCOevalEvaluateImages": len}, True),
        ("_C.cpython-311-x86_64-linux-gnu.so", {}, False),
        ("_C.py", {"COCOevalEvaluateImages": len}, False),
    ],
    ids=["compiled", "compiled without it", "stand-in"],
)
def test_has_compiled_op(monkeypatch, file, operators, expected):
    detectron2 = pytest.importorskip("detectron2")
    extension = types.ModuleType("detectron2._C")
    extension.__file__ = "/site/detectron2/" + file
    vars(extension).update(operators)
    monkeypatch.setitem(sys.modules, "detectron2._C", extension)
    monkeypatch.setattr(detectron2, "_C", extension, raising=False)
    compat.has_compiled_op.cache_clear()
    assert compat.has_compiled_op("COCOevalEvaluateImages") is expected
    compat.has_compiled_op.cache_clear()


def test_has_compiled_op_without_the_extension(monkeypatch):
    detectron2 = pytest.importorskip("detectron2")
    monkeypatch.delattr(detectron2, "_C", raising=False)
    monkeypatch.setitem(sys.modules, "detectron2._C", None)  # an import of it fails
    compat.has_compiled_op.cache_clear()
    assert compat.has_compiled_op("COCOevalEvaluateImages") is False
    compat.has_compiled_op.cache_clear()


def test_the_installed_detectron2_imports_what_we_use():
    pytest.importorskip("detectron2")
    from detectron2 import model_zoo
    from detectron2.data import transforms
    from detectron2.engine import DefaultTrainer
    from detectron2.evaluation import COCOEvaluator

    assert callable(DefaultTrainer) and callable(COCOEvaluator)
    assert transforms.ExtentTransform((0, 0, 1, 1), (1, 1)).interp == 2  # PIL's bilinear
    assert model_zoo.get_config_file("common/train.py").endswith("train.py")
