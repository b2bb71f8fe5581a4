"""Overrides that make the demo's training one of a small network, and of a few steps."""

from __future__ import annotations

SMALL = [
    "data.input_size=[64,64]",
    "dataloader.train.num_workers=0",
    "dataloader.test.num_workers=0",
    # Saving the many tensors of a deep network would take longer than its steps.
    "model.backbone.out_features=[res3]",
    "model.neck.out_channels=32",
    "model.head.stacked_convs=1",
    "model.aux_head.stacked_convs=1",
    "model.score_thresh=0.0",  # so that a model without skill detects something
    "train.log_period=1",
    "train.device=cpu",
    "train.seed=1",
]
FAST = [
    *SMALL,
    "dataloader.train.total_batch_size=4",
    "model.aux_detach_iter=2",
    "train.max_iter=4",
    "train.eval_period=2",
    "train.checkpointer.period=2",
]
