from .nanodet_m_1_5x_320 import data, dataloader, lr_multiplier, model, optimizer, train

data.input_size = [416, 416]
dataloader.train.mapper.augmentations[0].scale = (0.5, 1.4)
dataloader.train.total_batch_size = 176
train.max_iter = 188_160  # 280 epochs of 672 iterations
train.eval_period = 6_720
train.output_dir = "./output/nanodet_m_1_5x_416"
