"""What a checkpoint says about itself, and which code it may name."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, instantiate
from omegaconf import OmegaConf
from torch import nn

from nanodet_d2.checkpoint import Card, SafeCheckpointer, read_card, read_file, read_weights
from nanodet_d2.checkpoint.config_text import config_from_json, config_to_json
from nanodet_d2.checkpoint.targets import UntrustedTarget, require_parts

CARD = Card("shapes", ("cat", "Größe 8"), (64, 96), '{"model": {}}', "0.1.0")


def configs(root) -> list:
    return sorted((root / "projects").glob("*/configs/*.py"))


def test_a_card_travels_with_every_file(tmp_path):
    checkpointer = SafeCheckpointer(nn.Linear(2, 2), str(tmp_path), card=CARD)
    checkpointer.save("model_final", iteration=3)
    path = str(tmp_path / "model_final.pth")
    assert read_card(path) == CARD
    assert read_file(path)["iteration"] == 3
    assert read_weights(path).state_dict.keys() == {"weight", "bias"}
    without = Card("a", ("x",), None, "", "0.1.0")
    assert Card.from_dict(json.loads(json.dumps(without.to_dict())), "a") == without


def test_files_without_a_card(tmp_path):
    for name, content in (("a", {"model": {"x": torch.zeros(1)}}), ("b", {"x": torch.zeros(1)})):
        torch.save(content, tmp_path / f"{name}.pth")
        assert read_card(str(tmp_path / f"{name}.pth")) is None


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("format_version", 2, "format_version 2; allowed: 1"),
        ("name", "../../etc", "name '../../etc'; allowed: the name of a file"),
        ("name", "..", "allowed: the name of a file"),
        ("name", "a\\b", "allowed: the name of a file"),
        ("name", "", "allowed: the name of a file"),
        ("class_names", [], "allowed: a list of names"),
        ("class_names", ["a", 3], "allowed: a list of names"),
        ("class_names", "ab", "allowed: a list of names"),
        ("input_size", [64, 0], "input_size .*allowed: height and width above 0, or none"),
        ("input_size", [64.0, 64.0], "input_size"),
        ("input_size", torch.zeros(2), "input_size"),
        ("config", {"a": 1}, "config .*allowed: text"),
        ("version", None, "version None; allowed: text"),
    ],
)
def test_damaged_cards_are_refused(tmp_path, field, value, message):
    torch.save({"model": {}, "card": {**CARD.to_dict(), field: value}}, tmp_path / "bad.pth")
    with pytest.raises(ValueError, match=f"card of .*bad.pth has .*{message}"):
        read_card(str(tmp_path / "bad.pth"))


@pytest.mark.parametrize("content", ["text", ["a"], 5])
def test_a_card_of_another_kind_is_refused(tmp_path, content):
    torch.save({"model": {}, "card": content}, tmp_path / "bad.pth")
    with pytest.raises(ValueError, match="format_version None; allowed: 1"):
        read_card(str(tmp_path / "bad.pth"))


def test_every_shipped_config_survives_as_text_and_names_only_parts(root):
    assert len(configs(root)) > 10
    for path in configs(root):
        cfg = LazyConfig.load(str(path))
        again = config_from_json(config_to_json(cfg))
        assert list(again) == list(cfg)
        plain = OmegaConf.to_container(again, resolve=True)
        require_parts(plain, path.name)
        assert config_to_json(again) == config_to_json(cfg)
    assert plain["data"]["train"]["name"] == "coco_2017_train"


def test_classes_as_values_survive_as_text():
    cfg = OmegaConf.create(flags={"allow_objects": True})
    cfg.model = L(nn.Sequential)()
    cfg.norm = nn.BatchNorm2d
    cfg.size = (3, 4)
    again = config_from_json(config_to_json(cfg))
    require_parts(OmegaConf.to_container(again), "test")
    assert instantiate(again.norm) is nn.BatchNorm2d
    assert isinstance(instantiate(again.model), nn.Sequential) and list(again.size) == [3, 4]


def test_what_text_cannot_hold_is_left_out(caplog):
    cfg = OmegaConf.create(flags={"allow_objects": True})
    cfg.model = L(nn.Linear)(in_features=1, out_features=2)
    cfg.dataloader = {"train": {"mapper": lambda record: record}}
    cfg.other = {"device": torch.device("cpu")}
    cfg.third = {"numbers": {1: "a"}}
    assert list(config_from_json(config_to_json(cfg))) == ["model"]
    assert "not tell the config's 'dataloader': dataloader.train.mapper is <function" in caplog.text
    assert "'other': other.device is device" in caplog.text
    assert "'third': third.numbers has the key 1" in caplog.text


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"a":' * 5000, "nonsense"])
def test_text_that_is_no_config_is_refused(text):
    with pytest.raises(ValueError, match="the config is"):
        config_from_json(text)


HOSTILE = {
    "a program": {"_target_": "os.system", "command": "echo"},
    "one behind a known name": {"_target_": "torch.os.system", "command": "echo"},
    "torch's hub": {"_target_": "torch.hub.load", "repo_or_dir": "a/b", "model": "c"},
    "a file of Python": {"_target_": "detectron2.config.LazyConfig.load", "filename": "x.py"},
    "our own": {"_target_": "nanodet_d2.config.get_config", "name": "/tmp/x.py"},
    "our own process": {"_target_": "nanodet_d2.get_detectron2.run", "command": ["echo"]},
    "any place": {"_target_": "detectron2.utils.registry.locate", "name": "os.system"},
    "a part bound later": {"_target_": "nanodet_d2.config.bind", "constructor": "os.system"},
    "one with no name": {"_target_": "nanodet_d2.config.bind", "constructor": None},
    "a value": {"_target_": "nanodet_d2.checkpoint.config_text.named", "name": "os.system"},
    "a call of a call": {"_target_": {"_target_": "torch.nn.Identity"}},
    "nothing": {"_target_": None},
    "no such thing": {"_target_": "torch.nn.Nothing"},
    "a module": {"_target_": "torch.nn"},
    "a part's program": {"_target_": "torch.nn.Module.register_module"},
    "TorchScript": {"_target_": "torch.jit.load", "f": "x.pt"},
}


@pytest.mark.parametrize("call", HOSTILE.values(), ids=HOSTILE)
def test_a_file_may_not_name(call):
    good = {"_target_": "torch.nn.Linear", "in_features": 1, "out_features": 1}
    require_parts({"a": [good]}, "x.pth")
    for node in (call, {"a": [good, {"b": call}]}, {**good, "bias": call}):
        with pytest.raises(UntrustedTarget, match="x.pth (names|has a call of)"):
            require_parts(node, "x.pth")


def test_what_a_file_names_is_not_even_imported(tmp_path, monkeypatch):
    (tmp_path / "evil_package.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    node = {"_target_": "evil_package.Part"}
    with pytest.raises(UntrustedTarget, match=r"trust that code.*data.imports=\[evil_package\]"):
        require_parts(node, "x.pth")
    assert "evil_package" not in sys.modules
    require_parts(node, "x.pth", trusted=["evil_package"])
    with pytest.raises(UntrustedTarget):  # a name that only begins like it
        require_parts({"_target_": "evil_package_2.Part"}, "x.pth", trusted=["evil_package"])
