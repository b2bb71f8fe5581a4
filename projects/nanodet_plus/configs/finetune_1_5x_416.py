from .finetune_416 import data, dataloader, lr_multiplier, model, optimizer, train

model.backbone.size = "1.5x"
model.neck.out_channels = 128
train.init_checkpoint = "nanodet-plus-m-1.5x-416"
train.output_dir = "./output/finetune_1_5x_416"
