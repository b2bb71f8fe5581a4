"""``nanodet-d2 track``: on an exported file it needs neither torch nor detectron2."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..sources import (
    NMS,
    NMS_HELP,
    SOURCE,
    SOURCE_HELP,
    Options,
    add_tiles,
    open_detector,
    tiles_of,
)
from ..verb import Outcome

if TYPE_CHECKING:
    from nanodet_d2.tracking import Settings
    from nanodet_d2.tracking.run import Done

HELP = "give objects ids that last over videos or from a camera, count them, and score the ids"
EXAMPLES = (
    "nanodet-d2 track model.onnx --input clip.mp4",
    "nanodet-d2 track model.onnx --input clip.mp4 --every 2 --line gate:10,50,90,50 "
    "--tracker nearest --output output/gate",
)
TAKES_OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", metavar=SOURCE, help=SOURCE_HELP)
    add("--input", nargs="+", required=True, metavar="INPUT", help="videos, folders of a video's "
        "pictures, or camera:0")  # fmt: skip
    add("--weights", help="a config's checkpoint, path or URL")
    add("--output", type=Path, default=Path("output/tracks"), help="folder for videos, "
        "tracks.jsonl, tracks.json (COCO with videos) and mot/ (default: %(default)s)")  # fmt: skip
    add("--every", type=int, default=1, metavar="N", help="only every N-th frame")
    add("--fps", type=float, help="of folders of pictures (default: 25), or of videos that tell a "
        "wrong one")  # fmt: skip
    add("--max-frames", type=int, help="of each input, then stop")
    add("--no-video", action="store_true", help="draw and write no video")
    _add_tracker(parser)
    _add_areas(parser)
    add("--gt", type=Path, nargs="+", default=[], metavar="MOT", help="ground truth of each input: "
        "HOTA, IDF1, MOTA")  # fmt: skip
    add("--explain", type=Path, nargs="+", default=[], metavar="MOT", help="the same, and why ids "
        "switch")  # fmt: skip
    add("--metadata", type=Path, help="json in place of an exported file's own metadata")
    add("--input-size", type=int, nargs=2, metavar=("H", "W"), help="of a config or dynamic file")
    add("--threads", type=int, help="of the engine")
    add("--device", help="where to compute, e.g. cpu or cuda")
    add("--nms", choices=NMS, help=NMS_HELP)
    add_tiles(parser)


def _add_tracker(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--tracker", default="bytetrack", help="bytetrack, ocsort or sort (the extra video), or "
        "nearest: ids from one frame to the next only (default: %(default)s)")  # fmt: skip
    add("--low", type=float, help="lowest score that goes on with a track (default: 0.3)")
    add("--high", type=float, help="lowest score of a sure box (default: 0.45)")
    add("--start", type=float, help="lowest score that begins a track (default: 0.55; with "
        "ocsort and nearest it is --high)")  # fmt: skip
    add("--min-iou", dest="iou", type=float, help="of a track and a box, at least (default: 0.1)")
    add("--lost", type=float, metavar="SECONDS", help="that a track is kept without a box "
        "(default: 1)")  # fmt: skip
    add("--confirm", type=int, metavar="N", help="frames that a new track needs (default: 2)")


def _add_areas(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--line", action="append", default=[], metavar="NAME:X1,Y1,X2,Y2", help="count what "
        "crosses it: in is from its right to its left, as one goes along it")  # fmt: skip
    add("--zone", action="append", default=[], metavar="NAME:X1,Y1,X2,Y2,X3,Y3,…",
        help="count what comes into it and goes out")  # fmt: skip
    add("--areas", type=Path, metavar="JSON", help='lines and zones: {"lines": {"gate": [[x, y], '
        '[x, y]]}, "zones": {"yard": [[x, y], …]}}')  # fmt: skip
    add("--interval", type=float, default=1.0, metavar="SECONDS", help="between rows of the csv of "
        "counts (default: 1)")  # fmt: skip


def run(args: argparse.Namespace) -> Outcome:
    from nanodet_d2.runtime.sources import open_inputs
    from nanodet_d2.tracking.adapter import require_tracker
    from nanodet_d2.tracking.areas import all_areas
    from nanodet_d2.tracking.follow import Wishes
    from nanodet_d2.tracking.run import track_in

    if args.gt and args.explain:
        raise ValueError("--explain scores as well: give --gt or --explain")
    settings = _settings(args)
    require_tracker(settings)
    wish = Wishes(
        settings=settings,
        areas=all_areas(args.areas, args.line, args.zone),
        interval=args.interval,
        frame_rate=args.fps,
        max_frames=args.max_frames,
        draw=not args.no_video,
        record=bool(args.explain),
    )
    sources = open_inputs(args.input, args.output, every=args.every)
    detector = open_detector(args.source, args.weights, args.overrides, _options(args, settings))
    truths = args.explain or args.gt
    done = track_in(sources, detector, args.output, wish, truths=truths)
    return Outcome(_text(done), _facts(done, args.output), code=int(bool(done.problems)))


def _settings(args: argparse.Namespace) -> Settings:
    """The defaults but for what was given; ``high`` and ``start`` follow where one is moved."""
    from nanodet_d2.tracking import Settings

    names = ("tracker", "low", "high", "start", "iou", "lost", "confirm")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    usual = Settings()
    high = given.get("high", min(usual.high, given.get("start", 1.0)))
    given.setdefault("high", max(high, given.get("low", 0.0)))
    given.setdefault("low", min(usual.low, given["high"]))
    given.setdefault("start", max(usual.start, given["high"]))
    return Settings(**given)


def _options(args: argparse.Namespace, settings: Settings) -> Options:
    from nanodet_d2.tracking.explain import FLOOR

    lowest = min(FLOOR, settings.low) if args.explain else settings.low
    return Options(
        num_threads=args.threads,
        score_thresh=lowest,
        metadata=args.metadata,
        input_size=tuple(args.input_size) if args.input_size else None,
        nms=args.nms,
        device=args.device,
        tiles=tiles_of(args),
    )


def _facts(done: Done, output: Path) -> dict[str, Any]:
    facts: dict[str, Any] = {"videos": done.videos, "output": str(output)}
    if done.scores is not None:
        facts["scores"] = done.scores
    if done.explanation is not None:
        facts["explanation"] = done.explanation
    return {**facts, "problems": done.problems}


def _text(done: Done) -> str:
    lines = []
    for video in done.videos:
        dropped = f", {video['dropped']} dropped" if video["dropped"] else ""
        lines.append(
            f"{video['name']}: {video['frames']} frames{dropped}, {video['tracks']} tracks, "
            f"{video['frames_per_second']:.1f} frames/s"
        )
        for name, classes in video.get("counts", {}).items():
            told = ", ".join(f"{k} {v['in']} in {v['out']} out" for k, v in classes.items())
            lines.append(f"  {name}: {told or 'nothing'}")
    if done.scores is not None:
        lines.append(", ".join(f"{name} {value:g}" for name, value in done.scores.items()))
    return "\n".join([*lines, *done.lines])
