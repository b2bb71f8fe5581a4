"""``nanodet-d2 serve``: on exported files it needs neither torch nor detectron2."""

from __future__ import annotations

import argparse
import functools
import importlib.util

from ..sources import NMS, NMS_HELP, SOURCE_HELP, Options, open_detector
from ..verb import Outcome

HELP = "detect for clients over HTTP: pictures in, detections out as json"
EXAMPLES = (
    "nanodet-d2 serve model.onnx --port 8000",
    "nanodet-d2 serve fast=nanodet-plus-m-320 exact=nanodet-plus-m-416 --workers 2 --timeout 5",
)
TAKES_OVERRIDES = False  # NAME=SOURCE looks like one
_PACKAGES = ("starlette", "uvicorn", "python_multipart", "prometheus_client")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("models", metavar="[NAME=]SOURCE", nargs="+", help=f"{SOURCE_HELP}. POST /detect/NAME runs "
        "it, POST /detect the first; the name is the file's if none is given")  # fmt: skip
    add("--host", default="127.0.0.1", help="address to listen at; 0.0.0.0: of all networks "
        "(default: %(default)s)")  # fmt: skip
    add("--port", type=int, default=8000, help="0: any that is free (default: %(default)s)")
    add("--workers", type=int, help="detectors of each model, which work at the same time "
        "(default: what the CPUs allow; 2 with --device)")  # fmt: skip
    add("--threads", type=int, default=1, help="of each of them (default: %(default)s)")
    add("--max-batch", type=int, default=1, help="pictures of a call, if as many wait; for GPUs, "
        "and files exported with --dynamic (default: %(default)s)")  # fmt: skip
    add("--threshold", type=float, default=0.35, help="lowest score (default: %(default)s)")
    add("--nms", choices=NMS, help=NMS_HELP)
    add("--device", help="where to compute, e.g. cpu or cuda")
    add("--max-bytes", type=int, help="of a request's body (default: 16 MiB)")
    add("--max-pixels", type=int, help="of a picture (default: 25 million)")
    add("--max-images", type=int, help="of a request (default: 16)")
    add("--queue", type=int, help="requests at a time; those beyond get 429 (default: 64)")
    add("--timeout", type=float, help="seconds of a request; those that take longer get 408 while "
        "they are read, else 504 (default: 10)")  # fmt: skip


def run(args: argparse.Namespace) -> Outcome:
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"serve needs {', '.join(missing)}, not installed here: pip install 'nanodet-d2[serve]'"
        )
    from nanodet_d2.runtime.images import check_max_pixels
    from nanodet_d2.serving.limits import MAX_PIXELS, Limits
    from nanodet_d2.serving.run import run as serve
    from nanodet_d2.serving.service import Service, cores, named

    names = ("max_bytes", "max_images", "queue", "timeout")
    limits = Limits(**{k: getattr(args, k) for k in names if getattr(args, k) is not None})
    options = Options(
        num_threads=args.threads,
        score_thresh=args.threshold,
        max_pixels=check_max_pixels(MAX_PIXELS if args.max_pixels is None else args.max_pixels),
        nms=args.nms,
        device=args.device,
    )
    workers = args.workers
    if workers is None:
        on_cpu = args.device in (None, "cpu")
        workers = max(1, cores() // max(1, args.threads)) if on_cpu else 2
    sources = named(args.models)
    service = Service(
        {k: functools.partial(open_detector, x, None, [], options) for k, x in sources.items()},
        limits=limits,
        workers=workers,
        threads=args.threads,
        max_batch=args.max_batch,
    )
    serve(service, host=args.host, port=args.port)
    return Outcome(facts={"models": sources, "host": args.host, "port": args.port})
