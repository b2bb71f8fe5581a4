from .finetune_1_5x_416 import data, dataloader, lr_multiplier, model, optimizer, train

data.input_size = [320, 320]
train.init_checkpoint = "nanodet-plus-m-1.5x-320"
train.output_dir = "./output/finetune_1_5x_320"
