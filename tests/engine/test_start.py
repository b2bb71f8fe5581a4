"""What a training starts from decides on its rate, and on what its averages are mixed with."""

from __future__ import annotations

import logging

import pytest
import torch

from nanodet_d2.checkpoint import read_file
from nanodet_d2.engine import train


def test_settings_follow_from_the_classes_of_the_weights(config, tmp_path, caplog):
    """Only where the classes are the same; a resume knows it from the checkpoint."""
    share, out = "train.ema.settings.start_share=0.5", "train.eval_period=0"
    factor, rate = "train.same_classes_lr_factor=0.2", config().optimizer.lr
    train(config(out, "train.max_iter=1", f"train.output_dir={tmp_path / 'first'}"))
    first = f"train.init_checkpoint={tmp_path / 'first' / 'model_final.pth'}"
    same = config(out, share, factor, first, f"train.output_dir={tmp_path / 'same'}")
    train(same)
    assert "ema_start" in read_file(str(tmp_path / "same" / "model_final.pth"))
    assert same.train.ema.settings.start_share == 0.5
    assert same.optimizer.lr == pytest.approx(0.2 * rate)
    content = read_file(str(tmp_path / "first" / "model_final.pth"))
    content["card"]["class_names"][-1] = "nine"
    torch.save(content, tmp_path / "other.pth")
    other = [f"train.init_checkpoint={tmp_path / 'other.pth'}", share, factor, out]
    with caplog.at_level(logging.INFO, logger="nanodet_d2"):
        cfg = config(*other, "train.max_iter=2")
        train(cfg)
    assert cfg.optimizer.lr == rate
    assert "train.ema.settings.start_share 0.5 -> 0" in caplog.text
    assert "ema_start" not in read_file(str(tmp_path / "out" / "model_final.pth"))
    train(config(*other, "train.max_iter=3"), resume=True)  # not refused
    assert read_file(str(tmp_path / "out" / "model_final.pth"))["iteration"] == 2
