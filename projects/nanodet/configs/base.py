"""What the configs of the models before NanoDet-Plus share, NanoDet-m's first of all.

As the reference trains them today. (The published weights are from a version that augmented
otherwise.)
"""

from detectron2.config import LazyCall as L

from nanodet_d2.config import get_config
from nanodet_d2.engine import warmup_multistep

_coco = get_config("common/data/coco.py")
data = _coco.data
dataloader = _coco.dataloader
model = get_config("common/models/nanodet_m.py").model
optimizer = get_config("common/optim.py").SGD
train = get_config("common/train.py").train

# Images keep their proportions, so that batches have many shapes.
_train_warp, _test_warp = (x.mapper.augmentations[0] for x in (dataloader.train, dataloader.test))
_train_warp.keep_ratio = _test_warp.keep_ratio = True
_train_warp.stretch = ((1.0, 1.0), (1.0, 1.0))
train.cudnn_benchmark = False

dataloader.train.total_batch_size = 192
train.max_iter = 172_480  # 280 epochs of 616 iterations, COCO at batch 192
train.eval_period = 6_160  # 10 epochs
train.ema.enabled = False
lr_multiplier = L(warmup_multistep)(
    max_iter="${train.max_iter}",
    milestones=[240 / 280, 260 / 280, 275 / 280],
    warmup_iters=300,
    warmup_factor=0.1,
)
