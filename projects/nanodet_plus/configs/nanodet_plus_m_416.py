from .base import data, dataloader, lr_multiplier, model, optimizer, train

data.input_size = [416, 416]
train.output_dir = "./output/nanodet_plus_m_416"
