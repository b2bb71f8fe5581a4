"""Trainings fetch a backbone's ImageNet weights only where they start from these."""

from __future__ import annotations

import pytest
import torch
from detectron2.config import instantiate

from nanodet_d2.engine import evaluate_checkpoint, train
from nanodet_d2.engine.evaluation import Evaluation

PRETRAINED = "model.backbone.pretrained=true"


@pytest.fixture
def fetches(monkeypatch) -> list[str]:
    """What was fetched; every fetch fails."""
    asked: list[str] = []

    def fetch(source, *args, **kwargs):
        asked.append(str(source))
        raise OSError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    monkeypatch.setattr(Evaluation, "_measure", lambda self, model: {"bbox": {"AP": 1.0}})
    return asked


def test_evaluation_and_resume_fetch_nothing(config, tmp_path, fetches):
    torch.save({"model": instantiate(config().model).state_dict()}, tmp_path / "w.pth")
    assert evaluate_checkpoint(config(PRETRAINED, f"train.init_checkpoint={tmp_path / 'w.pth'}"))
    once = ("train.max_iter=1", "train.eval_period=0")
    train(config(*once))
    train(config(PRETRAINED, *once), resume=True)
    assert not fetches
    with pytest.raises(ValueError, match="cannot be had from the network"):
        train(config(PRETRAINED, *once))
    assert len(fetches) == 1
