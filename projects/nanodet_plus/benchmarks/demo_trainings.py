"""What benchmarks share that train the demo: variants times seeds, each training in a process."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import common

from nanodet_d2.data.synthetic import make_shapes_dataset

Result = dict[str, float]  # AP, minutes and what else a training is measured by


def parser(description: str, *, output: str, variants: Sequence[str]) -> argparse.ArgumentParser:
    """The benchmarks' arguments, and those of trainings."""
    result = common.parser(description, output=output)
    result.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    result.add_argument("--iterations", type=int, default=900)
    result.add_argument("--variants", nargs="+", default=list(variants), choices=list(variants))
    return result


def train_all(
    args: argparse.Namespace, variants: Mapping[str, Sequence[str]]
) -> dict[str, list[Result]]:
    """Train each variant, given by its config overrides, with each seed.

    Finished trainings are not repeated when the command is started again.
    """
    folder = args.output.parent / args.output.stem
    splits = make_shapes_dataset(args.output.parent / "demo_data")
    data = [f"data.{split}.{key}={path}" for split, x in splits.items() for key, path in x.items()]
    runs = [(variant, seed) for seed in args.seeds for variant in args.variants]
    results: dict[str, list[Result]] = {variant: [] for variant in args.variants}
    for done, (variant, seed) in enumerate(runs, start=1):
        name = "".join(c if c.isalnum() else "_" for c in variant)
        overrides = [
            f"train.max_iter={args.iterations}",
            f"train.eval_period={args.iterations}",
            f"train.seed={seed}",
            f"train.device={args.device}",
        ]
        result = _train(
            folder / f"{name}_{seed}", [*data, *overrides, *variants[variant]], args.threads
        )
        results[variant].append(result)
        common.show(
            f"{done} of {len(runs)}: {variant}, seed {seed}: AP {result['AP']:.1f}, "
            f"{result['minutes']:.1f} min"
        )
    return results


def _train(output: Path, overrides: list[str], threads: int) -> Result:
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
    metrics = json.loads((output / "evaluation.json").read_text())
    result = {"AP": metrics["bbox"]["AP"], "minutes": (time.time() - begin) / 60}
    if "raw_bbox" in metrics:
        result["raw AP"] = metrics["raw_bbox"]["AP"]
    kept.write_text(json.dumps(result))
    return result
