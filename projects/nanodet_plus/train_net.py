#!/usr/bin/env python
"""Train or evaluate a lazy config; `nanodet-d2 train` is the same code.

train_net.py --config-file configs/nanodet_plus_m_416.py [--num-gpus N] [--resume] [key=value …]
torchrun --nproc_per_node N train_net.py --config-file … [--resume] [key=value …]
train_net.py --config-file … --eval-only train.init_checkpoint=weights.pth [key=value …]
"""

from detectron2.engine import default_argument_parser

from nanodet_d2.engine import launch, main

if __name__ == "__main__":
    launch(main, default_argument_parser(epilog=__doc__).parse_args())
