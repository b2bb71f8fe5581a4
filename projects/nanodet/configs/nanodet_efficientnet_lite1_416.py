from .nanodet_efficientnet_lite0_320 import (
    data,
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    train,
)

data.input_size = [416, 416]
model.backbone.model_name = "efficientnet_lite1"
model.backbone.drop_path_rate = 0.2 * 21 / 7
model.neck.out_channels = 128
model.head.reg_max = 10
model.head.stacked_convs = 3
model.head.assigner.anchor_scale = 8.0
dataloader.train.mapper.augmentations[0].scale = (0.5, 1.5)
dataloader.train.total_batch_size = 100
optimizer.lr = 0.07
lr_multiplier.milestones = [130 / 170, 150 / 170, 160 / 170, 165 / 170]
train.max_iter = 200_940  # 170 epochs of 1182 iterations
train.eval_period = 5_910
train.output_dir = "./output/nanodet_efficientnet_lite1_416"
