#!/usr/bin/env python
"""What the auxiliary branch costs and brings: AP on the demo data set over several seeds.

Trains the demo once per variant and seed, and prints AP (mean and each seed) and minutes.
Finished trainings are not repeated when the command is started again.
"""

from __future__ import annotations

import statistics

import common
import demo_trainings

VARIANTS = {
    "guide": ["model.aux_after_detach=guide"],
    "guide, light head": ["model.aux_after_detach=guide", "model.aux_head.use_depthwise=true"],
    "drop": ["model.aux_after_detach=drop"],
    "drop, light head": ["model.aux_after_detach=drop", "model.aux_head.use_depthwise=true"],
    "no branch": ["model.aux_head=null"],
}


def main() -> None:
    args = demo_trainings.parser(
        __doc__.splitlines()[0], output="aux_branch.json", variants=list(VARIANTS)
    ).parse_args()
    common.start(args)
    results = demo_trainings.train_all(args, VARIANTS)
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


if __name__ == "__main__":
    main()
