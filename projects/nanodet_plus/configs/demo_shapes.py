"""The demo: a small detector for drawn shapes, trained from scratch in three minutes on a CPU.

``data.train`` and ``data.val`` are filled in by ``demo.py``, which draws the images.
"""

from .base import data, dataloader, lr_multiplier, model, optimizer, train

data.input_size = [160, 160]
dataloader.train.total_batch_size = 16
dataloader.train.num_workers = 1
# Milder than for 300 epochs: this training sees each image some 25 times.
_warp = dataloader.train.mapper.augmentations[0]
_warp.scale = (0.8, 1.25)
_warp.stretch = ((0.9, 1.1), (0.9, 1.1))
_warp.translate = 0.1
dataloader.test.num_workers = 1
model.backbone.size = "0.5x"
# Most of a step's time, and in so short a training the branch teaches nothing.
model.aux_detach_iter = 0
model.aux_after_detach = "drop"
optimizer.lr = 1e-2
lr_multiplier.warmup_iters = 50
train.max_iter = 1000  # demo.py gives minutes in their place
train.eval_period = 500
train.log_period = 20
train.checkpointer.period = 500
train.ema.settings.decay = 0.99  # ~100 steps, for so short a training
train.ema.settings.warmup = 100.0
train.output_dir = "./output/demo"
