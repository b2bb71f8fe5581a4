from .nanodet_efficientnet_lite1_416 import (
    data,
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    train,
)

data.input_size = [512, 512]
model.backbone.model_name = "efficientnet_lite2"
model.head.stacked_convs = 4
model.head.assigner.anchor_scale = 5.0
dataloader.train.total_batch_size = 60
optimizer.lr = 0.06
lr_multiplier.milestones = [90 / 135, 110 / 135, 120 / 135, 130 / 135]
lr_multiplier.warmup_iters = 300
lr_multiplier.warmup_factor = 0.1
train.max_iter = 266_085  # 135 epochs of 1971 iterations
train.eval_period = 9_855
train.output_dir = "./output/nanodet_efficientnet_lite2_512"
