"""Mistakes that a training's figures give away, and its last lines."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
from detectron2.engine import TrainerBase
from detectron2.utils.events import EventStorage

from nanodet_d2.engine import train
from nanodet_d2.engine.mistakes import RisingLoss, swapped_classes, warn_of_swapped_classes
from nanodet_d2.engine.outcome import log_outcome


def run(losses, *, warmup=0) -> None:
    """Show a hook the loss of each period of two steps."""
    hook, trainer = RisingLoss(2, warmup), TrainerBase()
    hook.trainer = trainer
    with EventStorage(0) as trainer.storage:
        for trainer.iter in range(2 * len(losses)):
            if trainer.iter % 2:
                trainer.storage.put_scalars(total_loss=losses[trainer.iter // 2], lr=0.25)
            hook.after_step()
            trainer.storage.step()


@pytest.mark.parametrize(
    "losses, warmup, rises",
    [
        ([2.0, 1.5, 1.6, 1.4, 1.9], 0, False),  # it goes up and down a little
        ([2.0, 1.5, 1.6, 3.0, 3.1, 9.0], 0, True),
        ([1.0, 1.4, 1.35, 1.2], 0, False),  # the first priors are assigned
        ([1.0, 2.0, 1.4], 4, False),  # in the warm-up
        ([1.0, 2.0, 1.9, 1.7], 4, True),
    ],
)
def test_a_loss_that_rises_is_said_once(losses, warmup, rises, caplog):
    with caplog.at_level(logging.WARNING, logger="nanodet_d2"):
        run(losses, warmup=warmup)
    assert caplog.text.count("the learning rate, now 0.25, is too high") == rises


def test_a_rate_that_is_too_high_is_noticed_in_a_training(config, caplog):
    overrides = ["optimizer.lr=3.0", "lr_multiplier.warmup_iters=0", "train.max_iter=12"]
    with caplog.at_level(logging.WARNING, logger="nanodet_d2"):
        try:
            train(config(*overrides, "optimizer.clip_grad_norm=1e9", "train.eval_period=0"))
        except FloatingPointError:
            return  # it did not even stay finite, and says so
    assert "is too high. Begin anew with a third of it: optimizer.lr" in caplog.text


def test_swapped_classes_are_named(caplog):
    background = 4
    counts = np.array(
        [
            (0, 0, 2), (0, 1, 8), (1, 0, 9), (1, background, 1),  # 0 and 1 are swapped
            (2, 2, 9), (2, 3, 6),  # 2 and 3 are alike
            (3, 2, 3), (3, 3, 7),
            (background, 0, 50),
        ]
    )  # fmt: skip
    assert swapped_classes(counts, 4) == [(0, 1)]
    few = np.array([(0, 1, 4), (1, 0, 4)])
    assert swapped_classes(few, 2) == [] == swapped_classes(np.zeros((0, 3), dtype=int), 2)
    with caplog.at_level(logging.WARNING, logger="nanodet_d2"):
        warn_of_swapped_classes(counts, ["ace", "king", "ten", "nine"])
    assert "objects of 'ace' are taken for 'king', and the other way round" in caplog.text


def test_the_last_lines_name_the_best_and_what_to_do(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="nanodet_d2"):
        log_outcome(str(tmp_path), {})
        assert caplog.text == ""
        (tmp_path / "model_final.pth").touch()
        log_outcome(str(tmp_path), {})
        assert f"last: {tmp_path}/model_final.pth, not evaluated" in caplog.text
        assert f"nanodet-d2 predict {tmp_path}/model_final.pth PICTURE" in caplog.text
        (tmp_path / "model_best.pth").touch()
        best = {"metric": "bbox/AP", "value": 61.53, "iteration": 99}
        (tmp_path / "model_best.json").write_text(json.dumps(best))
        caplog.clear()
        log_outcome(str(tmp_path), {"bbox": {"AP": 60.91}})
    assert f"best: {tmp_path}/model_best.pth, AP 61.5" in caplog.text
    assert f"last: {tmp_path}/model_final.pth, AP 60.9" in caplog.text
    assert f"nanodet-d2 export {tmp_path}/model_best.pth --format onnx" in caplog.text
