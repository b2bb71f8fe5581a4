"""What all NanoDet-Plus configs share."""

from nanodet_d2.config import get_config

_coco = get_config("common/data/coco.py")
data = _coco.data
dataloader = _coco.dataloader
lr_multiplier = get_config("common/schedule.py").lr_multiplier
model = get_config("common/models/nanodet_plus_m.py").model
optimizer = get_config("common/optim.py").AdamW
train = get_config("common/train.py").train
