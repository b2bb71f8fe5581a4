"""The optimisers as the reference uses them, with weight decay on everything.

AdamW for NanoDet-Plus, total gradient norm at most 35; SGD for what was before it.
"""

import torch
from detectron2.config import LazyCall as L

from nanodet_d2.engine import build_optimizer, parameter_groups

AdamW = L(build_optimizer)(
    # params.model is set by the training script
    params=L(parameter_groups)(base_lr="${..lr}", backbone_lr_factor=1.0),
    lr=1e-3,  # at the end of the warm-up
    betas=(0.9, 0.999),  # of the running means of the gradients and of their squares
    weight_decay=0.05,  # of all parameters
    clip_grad_norm=35.0,
    fused=True,  # one kernel for all parameters
)

# What the models before NanoDet-Plus are trained with; nothing is clipped.
SGD = L(build_optimizer)(
    params=L(parameter_groups)(base_lr="${..lr}", backbone_lr_factor=1.0),
    optimizer=torch.optim.SGD,
    lr=0.14,  # at the end of the warm-up
    momentum=0.9,  # share of the last step's direction that is kept
    weight_decay=1e-4,  # of all parameters
    fused=True,  # one kernel for all parameters
)
