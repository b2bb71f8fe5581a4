"""A training that is ended leaves what it has learnt; the table is in the project's README."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from detectron2.config import instantiate

from nanodet_d2.checkpoint import read_file
from nanodet_d2.engine import train

LONG = [
    "model.aux_head=null",
    "train.max_iter=50",
    "train.eval_period=0",
    "train.checkpointer.period=1000",
    "train.log_period=2",
]


def in_the_fourth_batch(cfg, action) -> None:
    """``action`` is called when the 15th sample, of four a batch, is made."""
    good = instantiate(cfg.dataloader.train.mapper)
    calls = 0

    def mapper(record):
        nonlocal calls
        calls += 1
        if calls == 15:
            action()
        return good(record)

    cfg.dataloader.train.mapper = mapper


def fail() -> None:
    raise RuntimeError("on purpose")


@pytest.fixture
def ctrl_c():
    """Python's handler, which is missing where a shell runs the tests in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("action", "error"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGTERM), SystemExit),
        (lambda: os.kill(os.getpid(), signal.SIGINT), KeyboardInterrupt),
        (fail, RuntimeError),
    ],
    ids=["SIGTERM", "SIGINT", "exception"],
)
def test_the_last_finished_step_is_saved(ctrl_c, config, tmp_path, action, error):
    before = signal.getsignal(signal.SIGTERM)
    cfg = config(*LONG)
    in_the_fourth_batch(cfg, action)
    with pytest.raises(error) as raised:
        train(cfg)
    if error is SystemExit:
        assert raised.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
    out = tmp_path / "out"
    assert (out / "last_checkpoint").read_text() == "model_0000002.pth"
    assert read_file(str(out / "model_0000002.pth"))["trainer"]["iteration"] == 2


def test_weights_that_were_about_to_move_are_those_of_the_last_reading(config, tmp_path):
    cfg = config(*LONG)

    def interrupt(optimizer, *_):
        interrupt.steps += 1
        if interrupt.steps == 4:
            raise KeyboardInterrupt

    interrupt.steps = 0
    build = torch.optim.AdamW

    class Interrupted(build):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.register_step_post_hook(interrupt)

    cfg.optimizer.optimizer = Interrupted
    with pytest.raises(KeyboardInterrupt):
        train(cfg)
    out = tmp_path / "out"
    assert (out / "last_checkpoint").read_text() == "model_0000001.pth"  # read after each second
    saved = read_file(str(out / "model_0000001.pth"))
    assert saved["iteration"] == 1 and saved["trainer"]["optimizer"]["state"][0]["step"] == 2


def test_a_full_disk_leaves_earlier_checkpoints(config, tmp_path, monkeypatch, caplog):
    cfg = config(*LONG, "train.checkpointer.period=2")
    whole = torch.save

    def full(content, file):
        if full.writes == 1:
            raise OSError(28, "No space left on device")
        full.writes += 1
        whole(content, file)

    full.writes = 0
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(RuntimeError, match="No space left on device.*earlier files are untouched"):
        train(cfg)
    out = tmp_path / "out"
    assert (out / "last_checkpoint").read_text() == "model_0000001.pth"
    assert read_file(str(out / "model_0000001.pth"))["iteration"] == 1
    assert "Could not save the interrupted training" in caplog.text
    assert not list(out.glob("*.unfinished"))


def test_a_short_training_evaluates_and_saves_before_its_end(config, tmp_path, caplog):
    """With the shipped periods, which are COCO's: 12,320 and 6,160 steps."""
    cfg = config(
        *LONG, "train.max_iter=20", "train.eval_period=12320", "train.checkpointer.period=6160"
    )
    with caplog.at_level("INFO", logger="nanodet_d2"):
        train(cfg)
    assert (cfg.train.eval_period, cfg.train.checkpointer.period) == (2, 2)
    message = "A training of 20 steps: train.eval_period 12320 -> 2, train.checkpointer.period"
    assert caplog.text.count(message) == 1
    assert len(list((tmp_path / "out").glob("model_00*.pth"))) == 3  # max_to_keep


def test_chosen_periods_stay(config):
    cfg = config(*LONG, "train.eval_period=49", "train.checkpointer.period=50", "train.max_iter=1")
    train(cfg)
    assert (cfg.train.eval_period, cfg.train.checkpointer.period) == (49, 50)
