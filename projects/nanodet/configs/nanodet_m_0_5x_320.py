from .base import data, dataloader, lr_multiplier, model, optimizer, train

model.backbone.size = "0.5x"
dataloader.train.mapper.augmentations[0].scale = (0.5, 1.5)
dataloader.train.total_batch_size = 96
optimizer.lr = 0.07
lr_multiplier.milestones = [130 / 180, 160 / 180, 175 / 180]
lr_multiplier.warmup_iters = 1000
lr_multiplier.warmup_factor = 1e-5
train.max_iter = 221_760  # 180 epochs of 1232 iterations
train.eval_period = 12_320
train.output_dir = "./output/nanodet_m_0_5x_320"
