"""AdamW as the reference uses it: weight decay on everything, total gradient norm at most 35."""

from detectron2.config import LazyCall as L

from nanodet_d2.engine import build_optimizer, parameter_groups

AdamW = L(build_optimizer)(
    # params.model is set by the training script
    params=L(parameter_groups)(base_lr="${..lr}", backbone_lr_factor=1.0),
    lr=1e-3,
    betas=(0.9, 0.999),
    weight_decay=0.05,
    clip_grad_norm=35.0,
    fused=True,  # one kernel for all parameters
)
