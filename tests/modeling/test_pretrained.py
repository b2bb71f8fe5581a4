"""ImageNet weights are neither fetched nor read where a checkpoint's follow."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import timm
import torch
import torchvision

from nanodet_d2.export.loading import load_model
from nanodet_d2.modeling import GhostNet, ShuffleNetV2, TimmBackbone, TorchvisionBackbone
from nanodet_d2.modeling.backbone import without_pretrained_weights

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def fetches(monkeypatch, tmp_path) -> list[str]:
    """What was fetched; every fetch fails."""
    asked: list[str] = []

    def fetch(source, *args, **kwargs):
        asked.append(str(source))
        raise OSError("no network")

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", fetch)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_url", fetch)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", fetch)
    return asked


@pytest.mark.parametrize(
    "build",
    [
        partial(ShuffleNetV2, "0.5x"),
        GhostNet,
        partial(TimmBackbone, "resnet18"),
        partial(TorchvisionBackbone, "mobilenet_v3_small"),
    ],
)
def test_backbones(build, fetches):
    with pytest.raises(ValueError, match="cannot be had from the network"):
        build(pretrained=True)
    count = len(fetches)
    with without_pretrained_weights():
        bare = build(pretrained=True)
        build(checkpoint_path="nowhere.pth")
    assert count and len(fetches) == count
    assert bare.input_spec.channel_order == "RGB"  # as with the weights
    with pytest.raises(ValueError, match="cannot be had from the network"):
        build(pretrained=True)  # again as before


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, options",
    [
        ("googlenet", dict(pretrained=True)),
        ("inception_v3", dict(weights="DEFAULT")),
    ],
)
def test_networks_that_change_with_their_weights(name, options, monkeypatch, fetches):
    """torchvision builds these otherwise where it loads weights: what they compute is the same."""
    theirs = torchvision.models.get_model(name, init_weights=False, aux_logits=True)
    with without_pretrained_weights():
        bare = TorchvisionBackbone(name, init_weights=False, **options).eval()
    assert not fetches
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url", lambda *_, **__: theirs.state_dict()
    )
    loaded = TorchvisionBackbone(name, **options).eval()
    bare.load_state_dict(loaded.state_dict())
    image = torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        for a, b in zip(bare(image).values(), loaded(image).values()):
            torch.testing.assert_close(a, b)


def test_timms_description_of_the_weights_stays(tmp_path, fetches):
    overlay = {"mean": (0.5, 0.25, 0.125), "file": str(tmp_path / "resnet18.pth")}
    with without_pretrained_weights():
        bare = TimmBackbone("resnet18", pretrained=True, pretrained_cfg_overlay=overlay)
    torch.save(timm.create_model("resnet18").state_dict(), overlay["file"])
    loaded = TimmBackbone("resnet18", pretrained=True, pretrained_cfg_overlay=overlay)
    assert bare.input_spec == loaded.input_spec and not fetches
    assert bare.input_spec.pixel_mean == (127.5, 63.75, 31.875)


def test_a_config_with_a_checkpoint(tmp_path, fetches):
    """Exports and predictions build a model in this way."""
    backbone = ("model.backbone.pretrained=true", "data.classes=[a,b]")
    config = ROOT / "projects" / "nanodet_plus" / "configs" / "demo_shapes.py"
    torch.save({"model": {"x": torch.zeros(1)}}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="does not fit this model"):  # past the construction
        load_model(str(config), str(tmp_path / "w.pth"), overrides=backbone)
    assert not fetches
