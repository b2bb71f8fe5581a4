from detectron2.config import LazyCall as L

from nanodet_d2.modeling import CustomCSPNet

from .nanodet_m_416 import data, dataloader, lr_multiplier, model, optimizer, train

model.backbone = L(CustomCSPNet)()
model.neck.out_channels = 128
model.head.reg_max = 10
model.head.stacked_convs = 1
model.head.use_depthwise = False
model.head.assigner.anchor_scale = 8.0
dataloader.train.mapper.augmentations[0].scale = (0.6, 1.4)
dataloader.train.total_batch_size = 128
optimizer.lr = 0.1
lr_multiplier.milestones = [130 / 190, 160 / 190, 175 / 190, 185 / 190]
lr_multiplier.warmup_iters = 500
lr_multiplier.warmup_factor = 0.01
train.max_iter = 175_560  # 190 epochs of 924 iterations
train.eval_period = 4_620  # 5 epochs
train.output_dir = "./output/nanodet_g_416"
