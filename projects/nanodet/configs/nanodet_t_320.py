from nanodet_d2.config import LazyPartial
from nanodet_d2.modeling import TAN

from .base import data, dataloader, lr_multiplier, model, optimizer, train

model.neck = LazyPartial(TAN)(out_channels=128, feature_size=[20, 20])
_color = dataloader.train.mapper.augmentations[1]
_color.contrast = _color.saturation = (0.8, 1.2)
dataloader.train.total_batch_size = 160
lr_multiplier.milestones = [140 / 190, 170 / 190, 180 / 190, 185 / 190]
lr_multiplier.warmup_iters = 500
lr_multiplier.warmup_factor = 0.01
train.max_iter = 140_410  # 190 epochs of 739 iterations
train.eval_period = 7_390
train.output_dir = "./output/nanodet_t_320"
