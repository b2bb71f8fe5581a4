from detectron2.config import LazyCall as L

from nanodet_d2.modeling import TimmBackbone

from .nanodet_plus_m_416 import data, dataloader, lr_multiplier, model, optimizer, train

model.backbone = L(TimmBackbone)(model_name="vit_tiny_patch16_224", pretrained=True)
train.output_dir = "./output/nanodet_plus_timm_vit_tiny_416"
