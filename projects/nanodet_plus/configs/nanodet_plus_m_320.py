from .base import data, dataloader, lr_multiplier, model, optimizer, train

train.output_dir = "./output/nanodet_plus_m_320"
