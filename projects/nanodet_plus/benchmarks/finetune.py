#!/usr/bin/env python
"""The fine-tuning recipe on sets of one's own: a grid of settings, sizes of the set, and lengths.

    python finetune.py --sets my/blood_cells my/cards --variants all --images-seen 4800
    python finetune.py --sets my/blood_cells --counts 25 50 100 0 --seeds 0 1 2
    python finetune.py --sets my/blood_cells --minutes 2 5 10 20 --starts coco nothing

A set is a folder that ``data.source`` takes; ``my/blood_cells@trainval@test`` chooses its splits.
Each training is a process, and is not repeated when the command is started again. Every training
of a grid sees as many images, so that its outcome does not depend on the machine. A table and plots
are written beside the json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import common
from matplotlib.figure import Figure

from nanodet_d2.config import get_config
from nanodet_d2.data.splits import split_content

_WARP = "dataloader.train.mapper.augmentations.0"
_COLOR = "dataloader.train.mapper.augmentations.1"
STRONG = [
    f"{_WARP}.scale=[0.6,1.4]",
    f"{_WARP}.stretch=[[0.8,1.2],[0.8,1.2]]",
    f"{_WARP}.translate=0.2",
]
VARIANTS: dict[str, list[str]] = {
    "as shipped": [],
    **{
        f"batch {batch}, rate {rate:g}": [
            f"dataloader.train.total_batch_size={batch}",
            f"optimizer.lr={rate}",
        ]
        for batch, rate in itertools.product((2, 4, 8, 16), (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 4e-3))
    },
    "stronger augmentation": STRONG,
    "no flip": [f"{_WARP}.flip=0.0"],
    "colours as for COCO": [
        f"{_COLOR}.brightness=0.2",
        f"{_COLOR}.contrast=[0.6,1.4]",
        f"{_COLOR}.saturation=[0.5,1.2]",
    ],
    "half of these colours": [
        f"{_COLOR}.brightness=0.1",
        f"{_COLOR}.contrast=[0.8,1.2]",
        f"{_COLOR}.saturation=[0.75,1.1]",
    ],
    "average of the last 20 %": ["train.ema.settings.window=0.2"],
    "average of the last 5 %": ["train.ema.settings.window=0.05"],
    "no average": ["train.ema.enabled=false"],
    "norms are trained": ["model.freeze_norm=false"],
    "backbone at a tenth of the rate": ["optimizer.params.backbone_lr_factor=0.1"],
    "no weight decay": ["optimizer.weight_decay=0.0"],
}
STARTS = {
    "coco": [],
    "nothing": ["train.init_checkpoint=", "model.freeze_norm=false"],
}


class Run(NamedTuple):
    """One training."""

    data: str  # name of the set
    count: int  # images to train on; 0 for all
    length: str  # "4800 images" or "5 minutes"
    start: str
    variant: str
    seed: int

    @property
    def folder(self) -> str:
        return "_".join("".join(c if c.isalnum() else "-" for c in str(x)) for x in self)


def main() -> None:
    args = parse_args()
    common.start(args)
    folder = args.output.parent / args.output.stem
    data = {}
    for source in args.sets:
        name, paths = prepare(source, args.counts, folder / "data", seed=0)
        data[name] = paths
    lengths = [f"{x:g} minutes" for x in args.minutes] or [f"{x} images" for x in args.images_seen]
    variants = list(VARIANTS) if args.variants == ["all"] else args.variants
    axes = (data, args.counts, lengths, args.starts, variants, args.seeds)
    runs = [Run(*x) for x in itertools.product(*axes)]
    results: dict[Run, float] = {}
    for done, run in enumerate(runs, start=1):
        result = train(run, data[run.data][run.count], folder / "runs", args)
        results[run] = result["AP"]
        common.show(
            f"{done} of {len(runs)}: {', '.join(map(str, run))}: AP {result['AP']:.1f}, AP50 "
            f"{result['AP50']:.1f}, {result['minutes']:.1f} min"
        )
    header = ["set", "images", "length", "start", "variant", "AP", f"seeds {args.seeds}"]
    common.show(common.table(rows_of(results), header))
    for axis, values in (("count", args.counts), ("length", lengths)):
        if len(values) > 1:
            draw(results, axis, args.output.with_name(f"{args.output.stem}_{axis}.png"))
    content = [{**run._asdict(), "AP": ap} for run, ap in results.items()]
    common.save(args.output, {"config": args.config, "runs": content}, args.device)


def parse_args() -> argparse.Namespace:
    parser = common.parser(__doc__.splitlines()[0], output="finetune.json")
    add = parser.add_argument
    add("--sets", nargs="+", required=True, metavar="FOLDER[@TRAIN@VAL]")
    add("--config", default="finetune_416.py", help="of the recipe (default: %(default)s)")
    add("--variants", nargs="+", default=["as shipped"], help=f"all, or of {list(VARIANTS)}")
    add("--counts", type=int, nargs="+", default=[0], help="images to train on; 0 for all")
    add("--images-seen", type=int, nargs="+", default=[4800], help="length of the trainings")
    add("--minutes", type=float, nargs="+", default=[], help="in place of --images-seen")
    add("--starts", nargs="+", default=["coco"], choices=list(STARTS))
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--opts", nargs="+", default=[], metavar="KEY=VALUE", help="overrides of all trainings")
    return parser.parse_args()


def prepare(
    source: str, counts: Sequence[int], folder: Path, *, seed: int
) -> tuple[str, dict[int, list[str]]]:
    """Name of a set, and by number of images the overrides that choose its files.

    Subsets are of the same order, so that a larger one holds the smaller ones.
    """
    path, train, val = [*source.split("@"), "", ""][:3]
    data = get_config("common/data/coco.py").data
    data.source, data.train.split, data.val.split = path, train or None, val or None
    name, folder = Path(path).name, folder / Path(path).name
    folder.mkdir(parents=True, exist_ok=True)
    splits = {split: split_content(data, split) for split in ("train", "val")}
    order = sorted(x["id"] for x in splits["train"][0]["images"])
    random.Random(seed).shuffle(order)
    common_overrides = write_split(folder / "val.json", "val", splits["val"], None)
    return name, {
        count: common_overrides
        + write_split(
            folder / f"train_{count}.json",
            "train",
            splits["train"],
            set(order[:count]) if count else None,
        )
        for count in counts
    }


def write_split(
    path: Path, split: str, content: tuple[dict[str, Any], str, str], ids: set[Any] | None
) -> list[str]:
    """Write a COCO file of some of the images; the overrides that choose it."""
    coco, _, images = content
    kept = {
        "images": [x for x in coco["images"] if ids is None or x["id"] in ids],
        "annotations": [x for x in coco["annotations"] if ids is None or x["image_id"] in ids],
        "categories": coco["categories"],
    }
    path.write_text(json.dumps(kept))
    return [
        f"data.{split}.json={path.absolute()}",
        f"data.{split}.images={Path(images).absolute()}",
    ]


def train(
    run: Run, data: Sequence[str], folder: Path, args: argparse.Namespace
) -> dict[str, float]:
    """Train in a process, unless it was done before."""
    output = folder / run.folder
    kept = output / "result.json"
    if kept.is_file():
        return json.loads(kept.read_text())
    output.mkdir(parents=True, exist_ok=True)
    number, unit = run.length.split()
    overrides = [*data, *STARTS[run.start], *VARIANTS[run.variant], *args.opts]
    if unit == "minutes":
        overrides.append(f"train.minutes={number}")
    else:
        batch = batch_size(args.config, overrides)
        overrides += [f"train.max_iter={max(1, int(number) // batch)}", "train.eval_period=0"]
        overrides.append("train.early_stop_patience=null")
    overrides += [
        f"train.seed={run.seed}",
        f"train.device={args.device}",
        f"train.output_dir={output}",
        "train.checkpointer.period=1000000",
    ]
    begin = time.time()
    script = common.ROOT / "projects" / "nanodet_plus" / "train_net.py"
    command = [sys.executable, str(script), "--config-file", str(common.CONFIGS / args.config)]
    with open(output / "console.txt", "w") as console:
        subprocess.run(
            [*command, *overrides],
            check=True,
            stdout=console,
            stderr=console,
            env=common.environment(args.threads),
        )
    metrics = json.loads((output / "evaluation.json").read_text())["bbox"]
    result = {"AP": metrics["AP"] or 0.0, "AP50": metrics["AP50"] or 0.0}
    result["minutes"] = (time.time() - begin) / 60
    for checkpoint in output.glob("*.pth"):
        checkpoint.unlink()
    kept.write_text(json.dumps(result))
    return result


def batch_size(config: str, overrides: Sequence[str]) -> int:
    """Images in a step of a training with these overrides."""
    key = "dataloader.train.total_batch_size"
    given = [x for x in overrides if x.startswith(f"{key}=")]
    if given:
        return int(given[-1].partition("=")[2])
    return int(get_config(f"nanodet_plus/{config}").dataloader.train.total_batch_size)


def rows_of(results: Mapping[Run, float]) -> list[list[Any]]:
    """A row for each training but for its seed, with the mean over the seeds."""
    groups: dict[tuple, list[float]] = {}
    for run, ap in results.items():
        groups.setdefault(run[:-1], []).append(ap)
    return [
        [
            x[0],
            x[1] or "all",
            *x[2:],
            f"{statistics.mean(aps):.1f}",
            ", ".join(f"{a:.1f}" for a in aps),
        ]
        for x, aps in groups.items()
    ]


def draw(results: Mapping[Run, float], axis: str, path: Path) -> None:
    """AP against the number of images, or the length, a curve for each set, start and variant."""
    values = list(dict.fromkeys(getattr(run, axis) for run in results))
    curves: dict[str, dict[Any, list[float]]] = {}
    for run, ap in results.items():
        name = ", ".join([run.data, f"from {run.start}", run.variant])
        curves.setdefault(name, {}).setdefault(getattr(run, axis), []).append(ap)
    figure = Figure(figsize=(7, 4.5))
    axes = figure.subplots()
    for name, points in curves.items():
        means = [statistics.mean(points[x]) for x in values]
        (line,) = axes.plot(range(len(values)), means, marker="o", label=name)
        for i, x in enumerate(values):
            axes.plot([i] * len(points[x]), points[x], ".", color=line.get_color(), alpha=0.4)
    axes.set_xticks(range(len(values)), [x or "all" for x in values])
    axes.set(xlabel="labelled images" if axis == "count" else "length", ylabel="AP")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    common.show(f"drawn: {path}")


if __name__ == "__main__":
    main()
