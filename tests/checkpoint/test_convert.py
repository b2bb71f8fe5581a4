"""Checkpoints for detectron2's tools, as safetensors, and for the reference."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer

from nanodet_d2.checkpoint import Card, load_weights, read_card, read_file, read_weights
from nanodet_d2.checkpoint.convert import convert_to_detectron2, convert_to_reference
from nanodet_d2.checkpoint.reference import convert_reference_state_dict, to_reference_state_dict
from nanodet_d2.modeling import GhostNet, GhostPAN, SimpleConvHead, TimmBackbone

CARD = Card("a_run", ("cat", "Größe"), (64, 64), "{}", "0.1.0")
CASES = Path(__file__).resolve().parents[1] / "parity" / "cases"


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def state(build_model):
    return build_model().state_dict()


@pytest.fixture
def ours(state, tmp_path) -> str:
    """A checkpoint of a training: raw and averaged weights, and a card."""
    averaged = {name: x + 1 for name, x in state.items()}
    content = {"model": state, "ema": averaged, "trainer": {"iteration": 3}, "card": CARD.to_dict()}
    torch.save(content, tmp_path / "model_final.pth")
    return str(tmp_path / "model_final.pth")


@pytest.mark.parametrize("case, count", [("plus_m", 887), ("plus_ghostnet", 1065)])
def test_the_references_names_come_back(case, count):
    names = json.loads((CASES / f"{case}.json").read_text())["state_dict"]
    theirs = {name: name for name in names}
    assert len(theirs) == count
    back = to_reference_state_dict(convert_reference_state_dict(theirs))
    assert back == theirs


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"aux_head": None},
        {"backbone": GhostNet()},
        {"neck": partial(GhostPAN, out_channels=32, use_depthwise=False)},
    ],
    ids=["plain", "no branch", "GhostNet", "no depthwise convolutions"],
)
def test_our_names_come_back(build_model, parts):
    state = build_model(**parts).state_dict()
    theirs = to_reference_state_dict(state)
    assert "fpn.reduce_layers.0.conv.weight" in theirs
    assert same(convert_reference_state_dict(theirs), state)


def test_what_the_reference_lacks_is_refused(build_model):
    light = build_model(aux_head=partial(SimpleConvHead, stacked_convs=1, use_depthwise=True))
    with pytest.raises(
        ValueError, match="no such part as that of aux_head.class_tower.0.depthwise"
    ):
        to_reference_state_dict(light.state_dict())
    timm = build_model(backbone=TimmBackbone(model_name="mobilenetv3_small_050", pretrained=False))
    with pytest.raises(ValueError, match="no such backbone, e.g. .*; allowed: ShuffleNetV2, Ghost"):
        to_reference_state_dict(timm.state_dict())
    with pytest.raises(ValueError, match="no such part as that of neck.lateral_convs.0.weight"):
        to_reference_state_dict({"neck.lateral_convs.0.weight": torch.zeros(1)})


def test_detectron2s_checkpointer_reads_the_averaged_weights(ours, state, build_model, tmp_path):
    path = str(tmp_path / "new" / "weights.pth")
    assert convert_to_detectron2(ours, path) == len(state)
    model = build_model()
    rest = DetectionCheckpointer(model).load(path)
    assert same(model.state_dict(), {name: x + 1 for name, x in state.items()})
    assert rest.keys() == {"card"}
    assert read_card(path) == CARD and read_file(path).keys() == {"model", "card"}


def test_weights_of_the_reference_for_detectron2(state, build_model, tmp_path):
    prefixed = {f"model.{name}": x for name, x in to_reference_state_dict(state).items()}
    averaged = {name.replace("model.", "avg_model.", 1): x + 1 for name, x in prefixed.items()}
    torch.save({"state_dict": {**prefixed, **averaged}, "epoch": 3}, tmp_path / "theirs.ckpt")
    path = str(tmp_path / "weights.pth")
    assert convert_to_detectron2(str(tmp_path / "theirs.ckpt"), path) == len(state)
    model = build_model()
    DetectionCheckpointer(model).load(path)
    assert same(model.state_dict(), {name: x + 1 for name, x in state.items()})
    assert read_card(path) is None
    convert_to_detectron2(str(tmp_path / "theirs.ckpt"), path, card=CARD)
    assert read_card(path) == CARD


def test_safetensors(ours, state, build_model, tmp_path):
    safetensors = pytest.importorskip("safetensors")
    path = str(tmp_path / "weights.safetensors")
    assert convert_to_detectron2(ours, path) == len(state)
    assert read_card(path) == CARD
    with safetensors.safe_open(path, framework="pt") as file:
        assert set(file.keys()) == set(state)
    model = build_model()
    load_weights(model, path, require_all=True)
    assert same(model.state_dict(), {name: x + 1 for name, x in state.items()})
    again = str(tmp_path / "again.pth")
    convert_to_detectron2(path, again)
    assert same(read_weights(again).state_dict, read_weights(path).state_dict)
    assert read_card(again) == CARD


def test_damaged_safetensors_are_refused(ours, tmp_path):
    pytest.importorskip("safetensors")
    path = tmp_path / "weights.safetensors"
    convert_to_detectron2(ours, path)
    whole = path.read_bytes()
    for content in (b"", whole[:1000], whole[:-10], b"\xff" * 100, b'\x08\0\0\0\0\0\0\0{"a": 1}'):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="weights.safetensors cannot be read safely"):
            read_weights(str(path))
    with pytest.raises(FileNotFoundError, match="absent.safetensors not found"):
        read_weights(str(tmp_path / "absent.safetensors"))


def test_for_the_reference(ours, state, build_model, tmp_path):
    path = str(tmp_path / "nanodet_model_best.pth")
    assert convert_to_reference(ours, path) == len(state)
    content = read_file(path)
    assert content.keys() == {"state_dict"}
    assert {name.partition(".")[0] for name in content["state_dict"]} == {
        "backbone", "fpn", "head", "aux_fpn", "aux_head",
    }  # fmt: skip
    model = build_model()
    load_weights(model, path, require_all=True)
    assert same(model.state_dict(), {name: x + 1 for name, x in state.items()})


def test_targets_are_checked_first(ours, tmp_path):
    with pytest.raises(
        ValueError, match=r"a.ckpt cannot be written; allowed names: \*.pth, \*.saf"
    ):
        convert_to_detectron2(ours, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=r"a.safetensors .*allowed names: \*.pth, \*.ckpt"):
        convert_to_reference(ours, tmp_path / "a.safetensors")
    with pytest.raises(FileNotFoundError, match="absent.pth not found"):
        convert_to_reference(str(tmp_path / "absent.pth"), tmp_path / "a.pth")
    assert not list(tmp_path.glob("a.*"))


def test_official_weights(shared, tmp_path):
    source = str(shared / "weights" / "nanodet-plus-m_416.pth")
    convert_to_detectron2(source, tmp_path / "ours.pth")
    convert_to_reference(str(tmp_path / "ours.pth"), tmp_path / "theirs.pth")
    assert same(
        read_file(str(tmp_path / "theirs.pth"))["state_dict"], read_file(source)["state_dict"]
    )
