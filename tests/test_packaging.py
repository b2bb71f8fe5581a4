"""A wheel of the project holds the package and its configs, and works without the checkout."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from nanodet_d2.data.synthetic import make_shapes_dataset

ROOT = Path(__file__).resolve().parents[1]
BUILD_INPUT = ("setup.py", "pyproject.toml", "LICENSE", "README.md", "nanodet_d2", "configs")
PROJECT_CONFIGS = sorted(ROOT.glob("projects/*/configs"))


def child_environment(**changes):
    return {**os.environ, **changes}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    for name in ("pip", "setuptools", "wheel"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"building a wheel needs {name}")
    source = tmp_path_factory.mktemp("source")  # a copy: a build leaves folders behind
    for name in BUILD_INPUT:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name)
        elif (ROOT / name).exists():
            shutil.copy(ROOT / name, source)
    for folder in PROJECT_CONFIGS:
        shutil.copytree(folder, source / folder.relative_to(ROOT))
    flags = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir"]
    folder = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *flags, str(folder), str(source)],
        capture_output=True,
        text=True,
        env=child_environment(),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def unpacked(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_name_and_version(wheel):
    text = (ROOT / "nanodet_d2" / "__init__.py").read_text(encoding="utf-8")
    version = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE).group(1)
    assert wheel.name == f"nanodet_d2-{version}-py3-none-any.whl"


def test_only_the_package_is_inside(unpacked):
    tops = {path.name for path in unpacked.iterdir() if not path.name.endswith(".dist-info")}
    assert tops == {"nanodet_d2"}


def test_every_module_and_every_config_is_inside(unpacked):
    def python_files(folder):
        return {path.relative_to(folder) for path in folder.rglob("*.py")}

    configs = unpacked / "nanodet_d2" / "configs"
    expected = python_files(ROOT / "configs")
    for folder in PROJECT_CONFIGS:
        expected |= {Path(folder.parent.name) / path for path in python_files(folder)}
    assert python_files(configs) == expected
    assert Path("nanodet_plus/nanodet_plus_m_416.py") in expected
    assert (unpacked / "nanodet_d2" / "py.typed").is_file()
    modules = {p for p in python_files(unpacked / "nanodet_d2") if p.parts[0] != "configs"}
    assert modules == python_files(ROOT / "nanodet_d2")


def test_the_metadata_names_no_detectron2_and_holds_opencv(unpacked):
    (metadata,) = unpacked.glob("*.dist-info/METADATA")
    required = re.findall(r"^Requires-Dist: (.+)$", metadata.read_text(), re.MULTILINE)
    assert not any(line.startswith("detectron2") for line in required)
    assert any(line.startswith("opencv-python-headless") and "<5" in line for line in required)


def test_what_the_metadata_tells(unpacked):
    (metadata,) = unpacked.glob("*.dist-info/METADATA")
    text = metadata.read_text(encoding="utf-8")
    fields = text.partition("\n\n")[0].splitlines()
    for field in (
        "License-Expression: Apache-2.0",
        "Requires-Python: >=3.9",
        "Provides-Extra: export",
        "Provides-Extra: dev",
        "Description-Content-Type: text/markdown",
        "Classifier: Typing :: Typed",
    ):
        assert field in fields
    assert any(line.startswith("Project-URL: ") for line in fields)
    assert "# nanodet-d2" in text
    assert list(unpacked.glob("*.dist-info/licenses/LICENSE"))
    (scripts,) = unpacked.glob("*.dist-info/entry_points.txt")
    assert "nanodet-d2 = nanodet_d2.cli:main" in scripts.read_text()


def test_configs_load_from_the_wheel_in_an_empty_folder(unpacked, tmp_path):
    pytest.importorskip("detectron2")
    code = (
        "import nanodet_d2\n"
        "from nanodet_d2.config import get_config, shipped_configs\n"
        "print(nanodet_d2.__file__)\n"
        "print(all(len(get_config(name)) > 0 for name in shipped_configs()))\n"
        "print(sorted(get_config('common/train.py')), len(shipped_configs()))\n"
        "print(list(get_config('nanodet_plus/nanodet_plus_m_1_5x_416.py').data.input_size))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=child_environment(PYTHONPATH=str(unpacked)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    place, whole, keys, size = done.stdout.strip().splitlines()[-4:]
    assert Path(place).is_relative_to(unpacked)
    count = len(list((ROOT / "configs").rglob("*.py")))
    count += sum(len(list(folder.rglob("*.py"))) for folder in PROJECT_CONFIGS)
    assert (whole, keys, size) == ("True", f"['train'] {count}", "[416, 416]")


@pytest.fixture(scope="module")
def fresh(wheel, tmp_path_factory):
    """The command of a new environment with the wheel; the dependencies are this one's."""
    folder = tmp_path_factory.mktemp("fresh") / "env"
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    (site,) = (folder / "lib").glob("python*/site-packages")
    lent = [x for x in sys.path if x.endswith("site-packages")]
    (site / "lent.pth").write_text("\n".join(lent))  # of which no .pth is read, so no checkout
    command = [sys.executable, "-m", "pip", "--python", str(python), "install"]
    done = subprocess.run(
        [*command, "--no-deps", "--no-index", "--ignore-installed", str(wheel)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = subprocess.run(
        [str(python), "-c", "import nanodet_d2; print(nanodet_d2.__file__)"],
        **in_empty(folder.parent),
    )
    assert Path(found.stdout.strip()).is_relative_to(site)
    return folder / "bin" / "nanodet-d2"


def in_empty(folder):
    """Arguments of a process that finds nothing of the checkout by itself."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return dict(cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_from_an_empty_folder_to_predictions(fresh, tmp_path):
    for name in ("onnx", "onnxscript", "onnxslim", "onnxruntime"):
        pytest.importorskip(name)
    splits = make_shapes_dataset(tmp_path / "data", num_train=12, num_val=4, image_size=96)

    def run(*arguments):
        done = subprocess.run([str(fresh), *map(str, arguments), "--json"], **in_empty(tmp_path))
        assert done.returncode == 0, done.stderr[-4000:]
        return json.loads(done.stdout)

    data = [f"data.{split}.{key}={path}" for split, x in splits.items() for key, path in x.items()]
    small = ["data.input_size=[96,96]", "dataloader.train.total_batch_size=4", "train.device=cpu"]
    run("train", "nanodet_plus/demo_shapes.py", *data, *small, "train.max_iter=20")
    trained = tmp_path / "output" / "demo" / "model_final.pth"
    val = splits["val"]
    metrics = run("eval", trained, "--data", val["json"], "--images", val["images"])
    assert set(metrics["bbox"]) >= {"AP", "AP50"}
    (written,) = run("export", trained, "--format", "onnx")
    assert written["differences"]
    done = run("predict", written["path"], val["images"], "--threshold", "0.01")
    assert done["pictures"] == 4 and done["detections"] > 0 and not done["problems"]
