"""AdamW as the reference uses it: weight decay on everything, total gradient norm at most 35."""

from detectron2.config import LazyCall as L
from detectron2.solver.build import get_default_optimizer_params

from nanodet_d2.engine import build_optimizer

AdamW = L(build_optimizer)(
    params=L(get_default_optimizer_params)(),  # params.model is set by the training script
    lr=1e-3,
    betas=(0.9, 0.999),
    weight_decay=0.05,
    clip_grad_norm=35.0,
    fused=True,  # one kernel for all parameters
)
