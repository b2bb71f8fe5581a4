#!/usr/bin/env python
"""HOTA, IDF1 and MOTA of each tracker on drawn videos, with a detector of the demo's recipe.

Draws clips, trains on single frames of some, exports, and tracks in the others. ``nearest`` gives a
box the id of the nearest one in the frame before: what a tracker has to be better than. Thresholds
are the command's defaults, or chosen on clips of another ``--seed``, with ``--model`` of this one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import common

from nanodet_d2.data.clip_set import ClipSet, make_clips
from nanodet_d2.export.job import Job
from nanodet_d2.export.loading import load_model
from nanodet_d2.export.writer import export
from nanodet_d2.runtime import Detector
from nanodet_d2.runtime.sources import open_inputs
from nanodet_d2.tracking import Settings
from nanodet_d2.tracking.follow import Wishes
from nanodet_d2.tracking.run import track_in

TRACKERS = ("nearest", "sort", "ocsort", "bytetrack")
THRESHOLDS = ("low", "high", "start", "iou", "lost")
SHOWN = ("HOTA", "DetA", "AssA", "MOTA", "IDF1", "IDSW")


def main() -> None:
    parser = common.parser(__doc__, output="tracking.json")
    parser.add_argument("--minutes", type=float, default=4.0, help="of the training")
    parser.add_argument("--trackers", nargs="+", default=list(TRACKERS))
    parser.add_argument("--seed", type=int, default=0, help="of the clips")
    parser.add_argument("--model", type=Path, help="an exported file; none is trained then")
    for name in THRESHOLDS:
        parser.add_argument(f"--{name}", type=float, default=getattr(Settings(), name))
    args = parser.parse_args()
    common.start(args)
    folder = args.output.parent / f"{args.output.stem}_{args.seed}"
    clips = drawn_clips(folder, seed=args.seed)
    length = f"train.minutes={args.minutes}"
    model = args.model or trained_model(clips, folder, length, args.threads)
    given = {name: getattr(args, name) for name in THRESHOLDS}
    found = {
        name: scores(model, clips, folder / name, Settings(tracker=name, **given))
        for name in args.trackers
    }
    rows = [(name, *(f"{x[key]:.1f}" for key in SHOWN)) for name, x in found.items()]
    common.show(common.table(rows, ["tracker", *SHOWN]))
    facts = {"minutes": args.minutes, "seed": args.seed, "thresholds": given, "scores": found}
    common.save(args.output, facts, args.device)


def drawn_clips(folder: Path, **arguments: int) -> ClipSet:
    """Those that an earlier run has drawn, else new ones; arguments of ``make_clips``."""
    kept = folder / "clips.json"
    if kept.is_file():
        content = json.loads(kept.read_text())
        clips = tuple((Path(video), Path(truth)) for video, truth in content["clips"])
        return ClipSet(content["splits"], clips)
    made = make_clips(folder / "data", **arguments)
    clips_as_text = [[str(video), str(truth)] for video, truth in made.clips]
    kept.write_text(json.dumps({"splits": made.splits, "clips": clips_as_text}))
    return made


def trained_model(clips: ClipSet, folder: Path, length: str, threads: int) -> Path:
    """The exported file of a detector for the clips, trained once; ``length`` is an override, as
    "train.minutes=4"."""
    exported = folder / "export"
    if not exported.is_dir():
        script = common.ROOT / "projects" / "nanodet_plus" / "train_net.py"
        config = str(common.CONFIGS / "demo_shapes.py")
        overrides = [
            *(f"data.{k}.{key}={path}" for k, x in clips.splits.items() for key, path in x.items()),
            length,
            f"train.output_dir={folder / 'training'}",
            "train.seed=0",
        ]
        with open(folder / "console.txt", "w") as console:
            subprocess.run(
                [sys.executable, str(script), "--config-file", config, *overrides],
                check=True,
                stdout=console,
                stderr=console,
                env=common.environment(threads),
            )
        loaded = load_model(str(folder / "training" / "model_final.pth"))
        export(loaded, Job(formats=("onnx",), output=exported))
    return next(exported.glob("*.onnx"))


def scores(model: Path, clips: ClipSet, output: Path, settings: Settings) -> dict[str, float]:
    """Of one tracker, over all clips."""
    detector = Detector(model, score_thresh=settings.low)
    sources = open_inputs([str(video) for video, _ in clips.clips], output)
    wish = Wishes(settings=settings, draw=False)
    done = track_in(sources, detector, output, wish, truths=[truth for _, truth in clips.clips])
    if done.problems or done.scores is None:
        raise SystemExit(f"tracking.py: {'; '.join(done.problems)}")
    return done.scores


if __name__ == "__main__":
    main()
