"""Models by name: configs, and weights that are found, fetched once, and compared."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nanodet_d2 import zoo
from nanodet_d2.export.loading import load_model
from nanodet_d2.resolve import resolve
from tests.web_server import serve

M = "nanodet-plus-m-416"
QUICK = """
import sys
from nanodet_d2 import zoo
print(zoo.table(), [zoo.entry(name).facts() for name in zoo.names()])
print([x for x in ("torch", "detectron2", "cv2", "omegaconf") if x in sys.modules])
"""


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv(zoo.FOLDER, raising=False)


@pytest.fixture
def published_at(monkeypatch):
    """Has the weights of ``M`` published at another address."""

    def move(url: str) -> None:
        moved = dataclasses.replace(zoo.entry(M), url=f"{url}/")
        monkeypatch.setitem(zoo._ENTRIES, M, moved)

    return move


def test_a_name_is_told_without_anything_heavy():
    done = subprocess.run([sys.executable, "-c", QUICK], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert f"{M}" in done.stdout and "30.4" in done.stdout and "1,197,924" in done.stdout


@pytest.mark.parametrize("name", zoo.names())
def test_entries_say_what_their_configs_build(name):
    entry, cfg = zoo.entry(name), zoo.get_config(name)
    assert list(cfg.data.input_size) == [entry.input_size] * 2
    model = zoo.get(name)
    counts = {
        prefix: sum(
            p.numel() for n, p in model.named_parameters() if n.startswith("aux_") == prefix
        )
        for prefix in (False, True)
    }
    assert (counts[False], sum(counts.values())) == (entry.parameters, entry.training_parameters)
    assert model.training and model.head.num_classes == 80
    assert json.loads(json.dumps(entry.facts()))["licence"] == "Apache-2.0"
    if name.startswith("nanodet-plus"):
        assert entry.weights_url.startswith(
            "https://github.com/RangiLyu/nanodet/releases/download/"
        )
    else:
        assert entry.weights_url == "https://github.com/RangiLyu/nanodet#model-zoo"


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="no model 'nanodet-plus-m-412'; did you mean '.*-416'"):
        zoo.get_config("nanodet-plus-m-412")
    with pytest.raises(ValueError, match=f"no model 'yolo'. There are: .*{M}"):
        zoo.weights("yolo")


@pytest.mark.parametrize("file", zoo.entry(M).files)
def test_weights_are_looked_for_in_a_folder_first(tmp_path, monkeypatch, published_at, file):
    monkeypatch.setenv(zoo.FOLDER, str(tmp_path))
    (tmp_path / file).write_bytes(b"abc")
    published_at("http://127.0.0.1:9")
    assert zoo.weights(M) == str(tmp_path / file)


def test_weights_are_fetched_once_and_compared_each_time(
    tmp_path, monkeypatch, published_at, capfd
):
    monkeypatch.setenv(zoo.FOLDER, str(tmp_path))  # where there are none
    with serve(b"weights") as (url, asked):
        published_at(url)
        path = zoo.weights(M)
        assert zoo.weights(M) == path and asked == ["/nanodet-plus-m_416_checkpoint.ckpt"]
    assert "nanodet-plus-m_416_checkpoint.ckpt: " in capfd.readouterr().err
    digest = hashlib.sha256(b"weights").hexdigest()
    assert Path(f"{path}.sha256").read_text() == f"{digest}  nanodet-plus-m_416_checkpoint.ckpt\n"
    Path(path).write_bytes(b"weights!")
    with pytest.raises(ValueError, match="checkpoint.ckpt, which was fetched .* has changed since"):
        zoo.weights(M)


def test_without_a_network_it_says_what_to_put_where(published_at):
    with serve(b"") as (url, _):
        published_at(url)
        message = (
            "checkpoint.ckpt cannot be fetched: .*put nanodet-plus-m_416_checkpoint.ckpt or "
            "nanodet-plus-m_416.pth into a folder, and name that folder by NANODET_D2_WEIGHTS"
        )
        with pytest.raises(ValueError, match=message):
            zoo.weights(M)


def test_weights_behind_a_page_are_put_where_they_are_found(tmp_path, monkeypatch):
    message = "of nanodet-g-416 cannot be fetched by a program; .*#model-zoo has a link. Put nanod"
    with pytest.raises(ValueError, match=message):
        zoo.weights("nanodet-g-416")
    monkeypatch.setenv(zoo.FOLDER, str(tmp_path))
    (tmp_path / "nanodet_g_416.ckpt").write_bytes(b"abc")
    assert zoo.weights("nanodet-g-416") == str(tmp_path / "nanodet_g_416.ckpt")


def test_a_name_does_wherever_a_config_does(tmp_path, monkeypatch):
    source = resolve(M, ["model.nms_thresh=0.5"])
    assert source.cfg.model.nms_thresh == 0.5 and source.name == M
    assert source.config_file.endswith("nanodet_plus_m_416.py")
    monkeypatch.setenv(zoo.FOLDER, str(tmp_path))
    torch.save({"model": zoo.get(M).state_dict()}, tmp_path / "nanodet-plus-m_416.pth")
    assert source.weights() == str(tmp_path / "nanodet-plus-m_416.pth")
    metadata = load_model(M).metadata
    assert metadata.name == M and metadata.input.width == 416 and len(metadata.class_names) == 80


def test_official_weights(shared, monkeypatch):
    monkeypatch.setenv(zoo.FOLDER, str(shared / "weights"))
    model = zoo.get(M, trained=True)
    assert next(model.parameters()).device.type == "cpu"
    assert float(model.head.predictors[0].bias.detach().abs().sum()) > 0
