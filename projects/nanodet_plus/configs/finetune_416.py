"""Official (or other) COCO weights on a small data set of the same kind: short, mild, no branch.

Give ``train.init_checkpoint``, ``data.train…`` and ``data.val…``.
"""

from .nanodet_plus_m_416 import data, dataloader, lr_multiplier, model, optimizer, train

dataloader.train.total_batch_size = 16
# Close to what the weights were made for: there is no time to get used to more.
_warp = dataloader.train.mapper.augmentations[0]
_warp.scale = (0.9, 1.1)
_warp.stretch = ((0.95, 1.05), (0.95, 1.05))
_warp.translate = 0.05
model.freeze_norm = True  # released weights have theirs folded
model.aux_head = None  # released weights have none, and it would learn for longer than this takes
optimizer.lr = 3e-4
lr_multiplier.warmup_iters = 20
train.max_iter = 200
train.eval_period = 100
train.checkpointer.period = 100
train.log_period = 20
# Half way back to the weights it started from: they forget less of what they were made for.
train.ema.settings.start_share = 0.5
train.ema.settings.decay = 0.99
train.ema.settings.warmup = 50.0
train.output_dir = "./output/finetune_416"
