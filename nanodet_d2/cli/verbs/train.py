"""``nanodet-d2 train``: the same code as ``projects/nanodet_plus/train_net.py``."""

from __future__ import annotations

import argparse
import json
import os

from nanodet_d2 import zoo

from ..sources import CONFIG_HELP, with_weights
from ..verb import Outcome

HELP = "train on a data set's folder, or a config, and evaluate"
EXAMPLES = (
    "nanodet-d2 train my_data train.minutes=10",
    "nanodet-d2 train my_config.py --resume train.max_iter=4000",
)
DEFAULT_MODEL = "nanodet-plus-m-416"
TAKES_OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "source",
        metavar="FOLDER|CONFIG",
        help="folder of a data set (COCO, Pascal VOC, YOLO; or "
        f"YOLO's data.yaml), on which the weights of --model are trained further; or {CONFIG_HELP}",
    )
    add("--model", metavar="NAME", help="whose weights to begin with, for a folder "
        f"(default: {DEFAULT_MODEL})")  # fmt: skip
    add("--resume", action="store_true", help="go on from the last checkpoint of train.output_dir")
    add("--num-gpus", type=int, default=1, help="of this machine (default: 1)")
    add("--num-machines", type=int, default=1, help="(default: 1)")
    add("--machine-rank", type=int, default=0, help="of this machine, from 0")
    add("--dist-url", default="auto", help="address of the first machine; several machines: see "
        "DISTRIBUTED.md for torchrun -m nanodet_d2 train …")  # fmt: skip
    add("--replay", metavar="REPORT", help="only compute the losses of a nonfinite_….pth again")


def run(args: argparse.Namespace) -> Outcome:
    from nanodet_d2.engine import launch, main, replay_report

    args.config_file, args.opts = _config_and_overrides(args)
    if args.replay:
        losses = replay_report(args.config_file, args.opts, args.replay)
        return Outcome("\n".join(f"{k:24} {v}" for k, v in losses.items()), losses)
    args.eval_only = False
    return Outcome(facts=launch(main, args))


def _config_and_overrides(args: argparse.Namespace) -> tuple[str, list[str]]:
    """What the source stands for; of a folder, the config of a training on it."""
    overrides = with_weights(args.overrides)
    if not _is_data_set(args.source):
        if args.model is not None:
            raise ValueError(f"--model is for the folder of a data set; {args.source} is a config")
        return args.source, overrides
    source = os.path.abspath(args.source)
    name = os.path.basename(source if os.path.isdir(source) else os.path.dirname(source))
    own = [
        f"data.source={json.dumps(source)}",
        f"train.output_dir={json.dumps(f'./output/{name}')}",
    ]
    recipe = zoo.entry(args.model or DEFAULT_MODEL).finetune_config
    if recipe is None:
        able = ", ".join(x for x in zoo.names() if zoo.entry(x).finetune_config)
        raise ValueError(f"no recipe trains {args.model} on a folder; allowed: {able}")
    return recipe, [*own, *overrides]


def _is_data_set(source: str) -> bool:
    """Whether it is a folder, or YOLO's description of one."""
    if os.path.isdir(source):
        return True
    if not source.endswith((".yaml", ".yml")) or not os.path.isfile(source):
        return False
    from nanodet_d2.data.readers.yolo_folder import is_description

    return is_description(source)
