from .base import data, dataloader, lr_multiplier, model, optimizer, train

model.backbone.size = "1.5x"
model.neck.out_channels = 128
train.output_dir = "./output/nanodet_m_1_5x_320"
