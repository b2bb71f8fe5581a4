#!/usr/bin/env python
"""What the auxiliary branch costs and brings: AP on the demo data set over several seeds.

Trains the demo once per variant and seed, and prints AP (mean and each seed) and minutes.
Finished trainings are not repeated when the command is started again.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import common

from nanodet_d2.data.synthetic import make_shapes_dataset

VARIANTS = {
    "guide": ["model.aux_after_detach=guide"],
    "guide, light head": ["model.aux_after_detach=guide", "model.aux_head.use_depthwise=true"],
    "drop": ["model.aux_after_detach=drop"],
    "drop, light head": ["model.aux_after_detach=drop", "model.aux_head.use_depthwise=true"],
    "no branch": ["model.aux_head=null"],
}


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0], output="aux_branch.json")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--iterations", type=int, default=900)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    args = parser.parse_args()
    common.start(args)
    folder = args.output.parent / "aux_branch"
    splits = make_shapes_dataset(folder / "data")
    data = [f"data.{split}.{key}={path}" for split, x in splits.items() for key, path in x.items()]
    runs = [(variant, seed) for seed in args.seeds for variant in args.variants]
    results: dict[str, list[dict[str, float]]] = {variant: [] for variant in args.variants}
    for done, (variant, seed) in enumerate(runs, start=1):
        output = folder / f"{variant.replace(', ', '_').replace(' ', '_')}_{seed}"
        overrides = [
            f"train.max_iter={args.iterations}",
            f"train.eval_period={args.iterations}",
            f"train.seed={seed}",
            f"train.device={args.device}",
        ]
        result = train(output, [*data, *overrides, *VARIANTS[variant]], args.threads)
        results[variant].append(result)
        common.show(
            f"{done} of {len(runs)}: {variant}, seed {seed}: AP {result['AP']:.1f}, "
            f"{result['minutes']:.1f} min"
        )
    rows = [
        [
            variant,
            f"{statistics.mean(x['AP'] for x in runs):.1f}",
            ", ".join(f"{x['AP']:.1f}" for x in runs),
            f"{statistics.median(x['minutes'] for x in runs):.1f}",
        ]
        for variant, runs in results.items()
    ]
    header = ["branch after detachment", "AP, mean", f"seeds {args.seeds}", "minutes"]
    common.show(common.table(rows, header))
    common.save(args.output, {"iterations": args.iterations, "runs": results}, args.device)


def train(output: Path, overrides: list[str], threads: int) -> dict[str, float]:
    """Train the demo config in a process of its own; the result is kept in ``output``."""
    kept = output / "result.json"
    if kept.is_file():
        return json.loads(kept.read_text())
    output.mkdir(parents=True, exist_ok=True)
    script = common.ROOT / "projects" / "nanodet_plus" / "train_net.py"
    command = [sys.executable, str(script), "--config-file", str(common.CONFIGS / "demo_shapes.py")]
    begin = time.time()
    with open(output / "console.txt", "w") as console:
        subprocess.run(
            [*command, *overrides, f"train.output_dir={output}"],
            check=True,
            stdout=console,
            stderr=console,
            env=common.environment(threads),
        )
    metrics = json.loads((output / "evaluation.json").read_text())["bbox"]
    result = {"AP": metrics["AP"], "minutes": (time.time() - begin) / 60}
    kept.write_text(json.dumps(result))
    return result


if __name__ == "__main__":
    main()
