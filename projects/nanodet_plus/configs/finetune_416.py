"""COCO weights on a data set of one's own: ``data.source=FOLDER``, in the minutes there are."""

from .nanodet_plus_m_416 import data, dataloader, lr_multiplier, model, optimizer, train

dataloader.train.total_batch_size = 4  # in so short a training it is the steps that count
# Close to what the weights were made for: there is no time to get used to more.
_warp, _color = dataloader.train.mapper.augmentations
_warp.scale = (0.9, 1.1)
_warp.stretch = ((0.95, 1.05), (0.95, 1.05))
_warp.translate = 0.05
_color.brightness, _color.contrast, _color.saturation = 0.0, (1.0, 1.0), (1.0, 1.0)  # none
model.freeze_norm = True  # released weights have theirs folded
model.aux_head = None  # released weights have none, and it would learn for longer than this takes
optimizer.lr = 5e-4
lr_multiplier.warmup_iters = 50  # a tenth of the steps where that is less
train.init_checkpoint = "nanodet-plus-m-416"
train.minutes = 10
train.early_stop_patience = 5  # of ten evaluations
train.log_period = 50
train.ema.settings.window = 0.1  # the last tenth
# Where the classes are those of the weights, which then forget less of what they were made for.
train.same_classes_lr_factor = 0.2
train.ema.settings.start_share = 0.5
train.output_dir = "./output/finetune_416"
