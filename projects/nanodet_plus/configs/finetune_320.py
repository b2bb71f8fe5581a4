from .finetune_416 import data, dataloader, lr_multiplier, model, optimizer, train

data.input_size = [320, 320]
train.init_checkpoint = "nanodet-plus-m-320"
train.output_dir = "./output/finetune_320"
