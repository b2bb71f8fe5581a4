#!/usr/bin/env python
"""What the parts of the recipe bring: AP on the demo data set over several seeds.

Every variant sees as many images as the first; averaged and raw weights are evaluated.
Finished trainings are not repeated when the command is started again.
"""

from __future__ import annotations

import statistics

import common
import demo_trainings

_SCALED = "train.reference_batch_size=16"  # fits rate and iterations to the batch
_MOSAIC = "dataloader.train.mixers=[{_target_: nanodet_d2.data.Mosaic, probability: 0.5}]"
VARIANTS = {
    "as shipped: batch 16": [],
    "mosaic on half of the images": [_MOSAIC],
    "batch 32, rate x 2": [_SCALED, "dataloader.train.total_batch_size=32"],
    "the same as 4 x 8": [
        _SCALED,
        "dataloader.train.total_batch_size=32",
        "model.micro_batches=4",
    ],
    "batch 64, rate x 4": [_SCALED, "dataloader.train.total_batch_size=64"],
    "batch 128, rate x 8": [_SCALED, "dataloader.train.total_batch_size=128"],
}


def main() -> None:
    args = demo_trainings.parser(
        __doc__.splitlines()[0], output="recipe.json", variants=list(VARIANTS)
    ).parse_args()
    common.start(args)
    variants = {name: ["train.evaluate_raw=true", *x] for name, x in VARIANTS.items()}
    results = demo_trainings.train_all(args, variants)
    rows = [
        [
            variant,
            *(f"{statistics.mean(x[key] for x in runs):.1f}" for key in ("AP", "raw AP")),
            *(", ".join(f"{x[key]:.1f}" for x in runs) for key in ("AP", "raw AP")),
            f"{statistics.median(x['minutes'] for x in runs):.1f}",
        ]
        for variant, runs in results.items()
    ]
    seeds = f"seeds {args.seeds}"
    header = ["variant", "AP, averaged weights", "AP, raw weights", seeds, f"raw, {seeds}", "min"]
    common.show(common.table(rows, header))
    common.save(args.output, {"iterations": args.iterations, "runs": results}, args.device)


if __name__ == "__main__":
    main()
