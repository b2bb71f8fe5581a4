"""NanoDet-m, before NanoDet-Plus: 0.95 M parameters."""

from detectron2.config import LazyCall as L

from nanodet_d2.config import LazyPartial
from nanodet_d2.data import num_classes
from nanodet_d2.modeling import PAN, ATSSAssigner, NanoDetHead, OneStageDetector, ShuffleNetV2

model = L(OneStageDetector)(
    backbone=L(ShuffleNetV2)(size="1.0x", activation="LeakyReLU"),
    neck=LazyPartial(PAN)(out_channels=96),
    head=LazyPartial(NanoDetHead)(
        num_classes=L(num_classes)(data="${data}"),
        reg_max=7,
        share_cls_reg=True,
        assigner=L(ATSSAssigner)(topk=9, anchor_scale=5.0),
    ),
)
