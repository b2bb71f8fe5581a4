"""A wheel of the project holds the package and its configs, and works without the checkout."""

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from nanodet_d2.data.synthetic import make_shapes_dataset
from tests.wheels import PROJECT_CONFIGS, ROOT, Environment


def child_environment(**changes):
    return {**os.environ, **changes}


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


@pytest.mark.slow
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
    """A new environment with the wheel; the dependencies are this one's."""
    environment = Environment(tmp_path_factory.mktemp("fresh") / "env")
    lent = [x for x in sys.path if x.endswith("site-packages")]
    (environment.site / "lent.pth").write_text("\n".join(lent))  # of which no .pth is read
    done = environment.install("--no-deps", "--no-index", "--ignore-installed", str(wheel))
    assert done.returncode == 0, done.stderr
    found = environment.run(
        "python", "-c", "import nanodet_d2; print(nanodet_d2.__file__)", cwd=environment.bin.parent
    )
    assert Path(found.stdout.strip()).is_relative_to(environment.site)
    return environment


@pytest.mark.slow
def test_from_an_empty_folder_to_predictions(fresh, tmp_path):
    for name in ("onnx", "onnxscript", "onnxslim", "onnxruntime"):
        pytest.importorskip(name)
    splits = make_shapes_dataset(tmp_path / "data", num_train=12, num_val=4, image_size=96)

    def run(*arguments):
        done = fresh.run("nanodet-d2", *map(str, arguments), "--json", cwd=tmp_path)
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
