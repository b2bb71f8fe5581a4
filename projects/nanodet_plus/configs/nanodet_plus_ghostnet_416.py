from detectron2.config import LazyCall as L

from nanodet_d2.modeling import GhostNet

from .nanodet_plus_m_416 import data, dataloader, lr_multiplier, model, optimizer, train

model.backbone = L(GhostNet)(pretrained=True)
train.output_dir = "./output/nanodet_plus_ghostnet_416"
