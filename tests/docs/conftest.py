"""A folder with the files that pages and docstrings name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from nanodet_d2 import zoo
from tests.cli.example_files import write_files
from tests.small_models import require


@pytest.fixture(scope="package")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    write_files(folder)
    for name in ("my_data/model_best.pth", "my_run/model_final.pth"):
        (folder / "output" / name).parent.mkdir(parents=True)
        shutil.copy(folder / "model_final.pth", folder / "output" / name)
    return folder


@pytest.fixture()
def reader(files, monkeypatch) -> Path:
    """The current folder, of somebody who follows a page."""
    require("openvino", "ncnn", "pnnx")
    monkeypatch.chdir(files)
    monkeypatch.setenv(zoo.FOLDER, str(files / "weights"))
    return files
