#!/usr/bin/env python
"""Train or evaluate a lazy config.

train_net.py --config-file configs/nanodet_plus_m_416.py [--num-gpus N] [--resume] [key=value …]
torchrun --nproc_per_node N train_net.py --config-file … [--resume] [key=value …]
train_net.py --config-file … --eval-only train.init_checkpoint=weights.pth [key=value …]
"""

import argparse

# First, because it lets an old detectron2 import beside a new Pillow.
from nanodet_d2.config import refuse_unknown_train_keys  # isort: skip

from detectron2.engine import default_argument_parser, default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from nanodet_d2.engine import (
    choose_batch_size,
    evaluate_checkpoint,
    fit_periods,
    launch,
    scale_to_batch_size,
    train,
)
from nanodet_d2.resolve import resolve


def main(args: argparse.Namespace) -> dict:
    source = resolve(args.config_file, args.opts)
    cfg, args.config_file = source.cfg, source.config_file or ""  # what detectron2 logs
    refuse_unknown_train_keys(cfg)
    setup_logger(cfg.train.output_dir, distributed_rank=comm.get_rank(), name="nanodet_d2")
    if not args.eval_only:
        fit_periods(cfg)
        choose_batch_size(cfg)
        scale_to_batch_size(cfg)
    default_setup(cfg, args)
    if args.eval_only:
        return evaluate_checkpoint(cfg)
    return train(cfg, resume=args.resume)


if __name__ == "__main__":
    launch(main, default_argument_parser(epilog=__doc__).parse_args())
