from .base import data, dataloader, lr_multiplier, model, optimizer, train

train.output_dir = "./output/nanodet_m_320"
