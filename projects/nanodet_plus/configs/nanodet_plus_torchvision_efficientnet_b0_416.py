from detectron2.config import LazyCall as L

from nanodet_d2.modeling import TorchvisionBackbone

from .nanodet_plus_m_416 import data, dataloader, lr_multiplier, model, optimizer, train

model.backbone = L(TorchvisionBackbone)(model_name="efficientnet_b0", pretrained=True)
train.output_dir = "./output/nanodet_plus_torchvision_efficientnet_b0_416"
