from detectron2.config import LazyCall as L

from nanodet_d2.modeling import TimmBackbone

from .base import data, dataloader, lr_multiplier, model, optimizer, train

model.backbone = L(TimmBackbone)(
    model_name="efficientnet_lite0",
    channel_order="BGR",
    bn_eps=1e-3,
    bn_momentum=0.01,
    drop_path_rate=0.2 * 16 / 7,  # timm shares it among 16 blocks, the reference 0.2 among 7 stages
)
model.pixel_mean = [127.0, 127.0, 127.0]
model.pixel_std = [128.0, 128.0, 128.0]
model.head.activation = "ReLU6"
dataloader.train.total_batch_size = 150
optimizer.lr = 0.15
lr_multiplier.milestones = [140 / 190, 170 / 190, 180 / 190, 185 / 190]
lr_multiplier.warmup_iters = 500
lr_multiplier.warmup_factor = 0.01
train.max_iter = 149_720  # 190 epochs of 788 iterations
train.eval_period = 788
train.output_dir = "./output/nanodet_efficientnet_lite0_320"
