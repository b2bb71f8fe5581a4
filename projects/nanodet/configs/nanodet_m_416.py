from .base import data, dataloader, lr_multiplier, model, optimizer, train

data.input_size = [416, 416]
dataloader.train.mapper.augmentations[0].scale = (0.5, 1.4)
train.output_dir = "./output/nanodet_m_416"
