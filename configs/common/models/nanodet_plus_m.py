"""NanoDet-Plus-m: 1.2 M parameters, 4.3 M in training."""

from detectron2.config import LazyCall as L

from nanodet_d2.config import LazyPartial
from nanodet_d2.data import num_classes
from nanodet_d2.modeling import (
    DynamicSoftLabelAssigner,
    GhostPAN,
    NanoDetPlus,
    NanoDetPlusHead,
    ShuffleNetV2,
    SimpleConvHead,
)

model = L(NanoDetPlus)(
    backbone=L(ShuffleNetV2)(size="1.0x", activation="LeakyReLU"),
    neck=LazyPartial(GhostPAN)(out_channels=96),
    head=LazyPartial(NanoDetPlusHead)(
        num_classes=L(num_classes)(data="${data}"),
        reg_max=7,
        assigner=L(DynamicSoftLabelAssigner)(topk=13, iou_factor=3.0),
    ),
    aux_head=LazyPartial(SimpleConvHead)(stacked_convs=4),
    aux_detach_iter=12_320,  # 10 epochs of COCO at batch 96
    aux_after_detach="guide",
)
