"""Reading, converting and loading checkpoints of all kinds, good and bad."""

from __future__ import annotations

import logging
import os
import sys
import types

import pytest
import torch

from nanodet_d2.checkpoint import convert_reference_state_dict, load_weights, read_weights
from nanodet_d2.checkpoint.loading import collapse_names


def save(path, content) -> str:
    torch.save(content, path)
    return str(path)


def reference_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A few of a model's tensors under the reference's names."""
    names = {
        "backbone.conv1.0.weight": "backbone.stem.weight",
        "backbone.stage2.0.branch2.6.bias": "backbone.stages.res3.0.branch2.2.norm.bias",
        "fpn.reduce_layers.1.conv.weight": "neck.reduce_layers.1.weight",
        "fpn.extra_lvl_in_conv.0.dwnorm.bias": "neck.extra_in_convs.0.depthwise.norm.bias",
        "head.cls_convs.2.1.pointwise.weight": "head.towers.2.1.pointwise.weight",
        "head.gfl_cls.0.bias": "head.predictors.0.bias",
        "head.distribution_project.project": "head.bins",
        "aux_head.reg_convs.0.gn.weight": "aux_head.box_tower.0.norm.weight",
        "aux_head.scales.3.scale": "aux_head.scales.3",
    }
    return {theirs: state[ours] for theirs, ours in names.items()}


def test_conversion_renames_every_kind(build_model):
    state = build_model().state_dict()
    converted = convert_reference_state_dict(reference_names(state))
    assert len(converted) == 9
    assert all(torch.equal(value, state[name]) for name, value in converted.items())


def test_averaged_weights_win_and_prefixes_go():
    state = {
        "model.fpn.reduce_layers.0.conv.weight": torch.tensor(1.0),
        "avg_model.fpn.reduce_layers.0.conv.weight": torch.tensor(2.0),
        "model.head.gfl_cls.0.bias": torch.tensor(3.0),
    }
    expected = {
        "neck.reduce_layers.0.weight": torch.tensor(2.0),
        "head.predictors.0.bias": torch.tensor(3.0),
    }
    assert convert_reference_state_dict(state) == expected
    reverse = dict(reversed(state.items()))
    assert convert_reference_state_dict(reverse) == expected
    wrapped = {"module." + k: v for k, v in state.items() if k.startswith("model")}
    assert float(convert_reference_state_dict(wrapped)["neck.reduce_layers.0.weight"]) == 1.0


def test_own_checkpoint_gives_its_averaged_weights(tmp_path):
    content = {"model": {"a": torch.zeros(1)}, "ema": {"a": torch.ones(1)}, "iteration": 7}
    weights = read_weights(save(tmp_path / "own.pth", content))
    assert float(weights.state_dict["a"]) == 1.0 and "EMA" in weights.origin
    del content["ema"]
    assert float(read_weights(save(tmp_path / "raw.pth", content)).state_dict["a"]) == 0.0
    bare = save(tmp_path / "bare.pth", {"a": torch.full((1,), 3.0)})
    assert float(read_weights(bare).state_dict["a"]) == 3.0


@pytest.fixture
def lightning_checkpoint(tmp_path):
    """A file that refers to a class of a trainer that is not installed here."""
    module = types.ModuleType("pytorch_lightning.callbacks.model_checkpoint")
    cls = type("ModelCheckpoint", (), {"__module__": module.__name__})
    module.ModelCheckpoint = cls
    names = ["pytorch_lightning", "pytorch_lightning.callbacks", module.__name__]
    sys.modules.update({name: module for name in names})
    content = {
        "epoch": 3,
        "callbacks": {cls: {"best_model_score": torch.tensor(0.3), "state": cls()}},
        "state_dict": {
            "model.fpn.reduce_layers.0.conv.weight": torch.zeros(1),
            "avg_model.fpn.reduce_layers.0.conv.weight": torch.ones(1),
        },
    }
    path = save(tmp_path / "lightning.ckpt", content)
    for name in names:
        del sys.modules[name]
    return path


@pytest.mark.skipif(
    not hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint"),
    reason="this torch cannot list the classes a file refers to",
)
def test_lightning_checkpoint_with_its_trainers_objects(lightning_checkpoint):
    weights = read_weights(lightning_checkpoint)
    assert float(weights.state_dict["neck.reduce_layers.0.weight"]) == 1.0
    assert "EMA" in weights.origin and "pytorch_lightning" not in sys.modules


class Bomb:
    def __reduce__(self):
        return os.mkdir, (os.environ["BOMB_TARGET"],)


def test_nothing_in_a_file_is_run(tmp_path, monkeypatch):
    target = tmp_path / "exploded"
    monkeypatch.setenv("BOMB_TARGET", str(target))
    path = save(tmp_path / "bomb.pth", {"model": {"a": torch.zeros(1)}, "x": Bomb()})
    with pytest.raises(ValueError, match=r"bomb.pth cannot be read safely"):
        read_weights(path)
    assert not target.exists()


def test_bad_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.pth not found"):
        read_weights(str(tmp_path / "nowhere.pth"))
    (tmp_path / "text.pth").write_text("not a checkpoint")
    with pytest.raises(ValueError, match="text.pth cannot be read"):
        read_weights(str(tmp_path / "text.pth"))
    whole = save(tmp_path / "whole.pth", {"model": {"a": torch.zeros(100)}})
    data = open(whole, "rb").read()
    (tmp_path / "torn.pth").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="torn.pth cannot be read"):
        read_weights(str(tmp_path / "torn.pth"))
    with pytest.raises(ValueError, match=r"holds no weights; found \['epoch'\]"):
        read_weights(save(tmp_path / "empty.pth", {"epoch": 3}))


def test_round_trip_is_complete(build_model, tmp_path):
    model, other = build_model(), build_model()
    with torch.no_grad():
        for p in other.parameters():
            p.add_(1.0)
    path = save(tmp_path / "w.pth", {"model": model.state_dict()})
    report = load_weights(other, path, require_all=True)
    assert report.complete and len(report.loaded) == len(model.state_dict())
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in model.state_dict().items())


def test_inference_weights_leave_the_auxiliary_branch(build_model, tmp_path, caplog):
    model = build_model()
    kept = {k: v for k, v in model.state_dict().items() if not k.startswith("aux_")}
    path = save(tmp_path / "w.pth", {"state_dict": kept})
    with caplog.at_level(logging.INFO, logger="nanodet_d2"):
        report = load_weights(model, path, require_all=True)
    assert report.complete and all(x.startswith("aux_") for x in report.missing)
    assert "backbone.*, neck.*, head.*" in caplog.text and "aux_neck.*, aux_head.*" in caplog.text


def test_another_number_of_classes_starts_from_rows_of_others(build_model, tmp_path, caplog):
    saved = build_model(num_classes=80)
    with torch.no_grad():
        for p in saved.parameters():
            p.add_(0.5)
    path = save(tmp_path / "w.pth", {"model": saved.state_dict()})
    model = build_model(num_classes=3)
    report = load_weights(model, path)
    state, before = model.state_dict(), saved.state_dict()
    assert report.reset_classes and not report.other_shape
    for i in range(4):
        for kind in ("weight", "bias"):
            name = f"head.predictors.{i}.{kind}"
            assert torch.equal(state[name][:3], before[name][[0, 26, 53]])
            assert torch.equal(state[name][3:], before[name][80:])
    name = "aux_head.class_predictor.weight"
    assert torch.equal(state[name], before[name][[0, 26, 53]])
    name = "aux_head.box_predictor.weight"
    assert torch.equal(state[name], before[name])
    assert "another number of classes" in caplog.text and "head.predictors.0.weight" in caplog.text
    with pytest.raises(ValueError, match="does not fit this model"):
        load_weights(build_model(num_classes=3), path, require_all=True)


def test_class_rows_are_not_taken_for_box_rows(build_model, tmp_path):
    """Of 80 classes the last 32 look like the 32 box rows, to a head that has none of these."""
    saved = build_model(num_classes=80)
    path = save(tmp_path / "w.pth", {"model": saved.state_dict()})
    model = build_model(num_classes=40)
    load_weights(model, path)
    state, before = model.state_dict(), saved.state_dict()
    for name in ("aux_head.class_predictor.weight", "aux_head.class_predictor.bias"):
        assert torch.equal(state[name], before[name][::2])
    name = "head.predictors.0.weight"
    assert torch.equal(state[name][:40], before[name][:80:2])
    assert torch.equal(state[name][40:], before[name][80:])


def test_other_architecture_is_refused(build_model, tmp_path):
    import torchvision

    network = torchvision.models.resnet18()
    path = save(tmp_path / "resnet.pth", network.state_dict())
    model = build_model()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"resnet.pth does not fit this model: 0 of its \d+"):
        load_weights(model, path)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_official_weights_fit_and_name_their_size(shared, build_model):
    path = str(shared / "weights" / "nanodet-plus-m_416.pth")
    with pytest.raises(
        ValueError, match="does not fit this model.*Of another shape: .*the model has"
    ):
        load_weights(build_model(num_classes=80), path)


def test_names_are_collapsed_to_whole_modules():
    universe = ["a.x.w", "a.x.b", "a.y.w", "b.w", "c"]
    assert collapse_names(["a.x.w", "a.x.b", "b.w"], universe) == ["a.x.*", "b.*"]
    assert collapse_names(universe, universe) == ["a.*", "b.*", "c"]
    assert collapse_names(["a.y.w", "a.x.b"], universe) == ["a.x.b", "a.y.*"]
    assert collapse_names([], universe) == []
