"""Learning-rate schedule over train.max_iter."""

from detectron2.config import LazyCall as L

from nanodet_d2.engine import warmup_cosine

lr_multiplier = L(warmup_cosine)(
    max_iter="${train.max_iter}",
    warmup_iters=500,
    warmup_factor=1e-4,
    final=0.05,  # of 1e-3: 5e-5
)
