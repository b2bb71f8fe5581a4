from detectron2.config import LazyCall as L
from detectron2.modeling.backbone import BasicStem, ResNet

from .nanodet_plus_m_416 import data, dataloader, lr_multiplier, model, optimizer, train

_stages = L(ResNet.make_default_stages)(depth=50, norm="BN")
_features = ["res3", "res4", "res5"]
model.backbone = L(ResNet)(stem=L(BasicStem)(norm="BN"), stages=_stages, out_features=_features)
train.output_dir = "./output/nanodet_plus_r50_416"
