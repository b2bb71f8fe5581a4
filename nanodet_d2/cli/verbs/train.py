"""``nanodet-d2 train``: the same code as ``projects/nanodet_plus/train_net.py``."""

from __future__ import annotations

import argparse

from ..sources import CONFIG_HELP, with_weights
from ..verb import Outcome

HELP = "train a config, and evaluate it"
EXAMPLES = (
    "nanodet-d2 train nanodet-plus-m-416 data.train.json=my/train.json data.train.images=my/train "
    "data.val.json=my/val.json data.val.images=my/val train.max_iter=2000",
    "nanodet-d2 train my_config.py --resume train.max_iter=4000",
)
TAKES_OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("config", metavar="CONFIG", help=CONFIG_HELP)
    add("--resume", action="store_true", help="go on from the last checkpoint of train.output_dir")
    add("--num-gpus", type=int, default=1, help="of this machine (default: 1)")
    add("--num-machines", type=int, default=1, help="(default: 1)")
    add("--machine-rank", type=int, default=0, help="of this machine, from 0")
    add("--dist-url", default="auto", help="address of the first machine; several machines: see "
        "DISTRIBUTED.md for torchrun -m nanodet_d2 train …")  # fmt: skip
    add("--replay", metavar="REPORT", help="only compute the losses of a nonfinite_….pth again")


def run(args: argparse.Namespace) -> Outcome:
    from nanodet_d2.engine import launch, main, replay_report

    args.config_file, args.opts = args.config, with_weights(args.overrides)
    if args.replay:
        losses = replay_report(args.config_file, args.opts, args.replay)
        return Outcome("\n".join(f"{k:24} {v}" for k, v in losses.items()), losses)
    args.eval_only = False
    return Outcome(facts=launch(main, args))
