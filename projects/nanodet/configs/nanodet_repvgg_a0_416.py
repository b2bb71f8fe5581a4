from detectron2.config import LazyCall as L

from nanodet_d2.modeling import TimmBackbone
from nanodet_d2.modeling.backbone import make_repvgg_blocks

from .nanodet_m_416 import data, dataloader, lr_multiplier, model, optimizer, train

model.backbone = L(TimmBackbone)(
    model_name="repvgg_a0",
    channel_order="BGR",
    blocks=L(make_repvgg_blocks)(
        depths=[2, 4, 14, 1], multipliers=[0.75, 0.75, 0.75, 2.5], last_channels=512
    ),
)
model.neck.out_channels = 128
model.head.reg_max = 10
model.head.use_depthwise = False
model.head.activation = "ReLU"
model.head.assigner.anchor_scale = 8.0
dataloader.train.mapper.augmentations[0].scale = (0.5, 1.5)
dataloader.train.total_batch_size = 100
optimizer.lr = 0.07
lr_multiplier.milestones = [130 / 170, 150 / 170, 160 / 170, 165 / 170]
lr_multiplier.warmup_iters = 500
lr_multiplier.warmup_factor = 0.01
train.max_iter = 200_940  # 170 epochs of 1182 iterations
train.eval_period = 5_910
train.output_dir = "./output/nanodet_repvgg_a0_416"
