from detectron2.config import LazyCall as L

from nanodet_d2.modeling.backbone import make_stage

from .nanodet_plus_r50_416 import data, dataloader, lr_multiplier, model, optimizer, train

model.backbone.stages = L(make_stage)(depth=50, stride_in_1x1=False, norm="BN", res5_dilation=2)
train.output_dir = "./output/nanodet_plus_r50_dc5_416"
