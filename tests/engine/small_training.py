"""Overrides that make the demo's training one of a few fast steps."""

from __future__ import annotations

FAST = [
    "data.input_size=[64,64]",
    "dataloader.train.total_batch_size=4",
    "dataloader.train.num_workers=0",
    "dataloader.test.num_workers=0",
    "model.aux_detach_iter=2",
    "model.neck.out_channels=32",
    "model.score_thresh=0.0",  # so that a model without skill detects something
    "train.max_iter=4",
    "train.eval_period=2",
    "train.checkpointer.period=2",
    "train.log_period=1",
    "train.device=cpu",
    "train.seed=1",
]
