from detectron2.config import LazyCall as L

from nanodet_d2.modeling.backbone import make_dc5_stages

from .nanodet_plus_r50_416 import data, dataloader, lr_multiplier, model, optimizer, train

model.backbone.stages = L(make_dc5_stages)(depth=50, norm="BN")
train.output_dir = "./output/nanodet_plus_r50_dc5_416"
