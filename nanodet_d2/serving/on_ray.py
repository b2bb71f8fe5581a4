"""The application in the replicas of a Ray Serve cluster.

Ray's own commands take :func:`build`::

    serve run nanodet_d2.serving.on_ray:build models=/shared/model.onnx

and the config file of ``serve deploy`` has the same arguments under ``args``. A replica is a
process with the whole application, models included; Ray's proxies share out requests among them.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nanodet_d2.runtime import Detector
from nanodet_d2.runtime.images import check_max_pixels

from .limits import MAX_PIXELS, Limits

if TYPE_CHECKING:
    from ray.serve import Application
    from starlette.applications import Starlette

GRACE = 2.0  # seconds that an end may take beyond the time limit of a request
# argument: what makes its value of a text, since those of a command line are texts
ARGUMENTS: dict[str, Any] = {
    "models": str,
    "replicas": int,
    "workers": int,
    "threads": int,
    "max_batch": int,
    "threshold": float,
    "device": str,
    "max_pixels": int,
    "max_bytes": int,
    "max_images": int,
    "queue": int,
    "timeout": float,
}
_OF_LIMITS = ("max_bytes", "max_images", "queue", "timeout")


def build(args: Mapping[str, Any]) -> Application:
    """The application for Ray Serve.

    Args:
        args: ``models``: exported files, paths or NAME=PATH, in one text with spaces or as a list,
            which every machine sees under the same path. ``replicas`` (1), ``workers`` of each (1),
            ``threads`` of each of these (1), and as in ``nanodet-d2 serve``: ``max_batch``,
            ``threshold``, ``device``, ``max_pixels``, ``max_bytes``, ``max_images``, ``queue``,
            ``timeout``.

    Raises:
        ValueError: for another argument, or a value that is not allowed.
        ImportError: where there is no Ray Serve.
    """
    try:
        from ray import serve
    except ImportError as error:
        raise ImportError("this needs Ray Serve: pip install 'nanodet-d2[ray]'") from error
    given = checked(args)
    workers, threads = given.get("workers", 1), given.get("threads", 1)
    limits = Limits(**{name: given[name] for name in _OF_LIMITS if name in given})
    on_gpu = given.get("device", "cpu").startswith("cuda")

    def application() -> Starlette:
        return _make_app(given, limits)

    class Replica:
        def check_health(self) -> None:
            """Ray calls it, and starts a replica again that cannot go on."""
            if not self.app.state.service.healthy:  # type: ignore[attr-defined]
                raise RuntimeError("the detector fails, see this replica's log")

    deployment = serve.deployment(
        name="detect",
        num_replicas=given.get("replicas", 1),
        # More than a replica takes, so that it refuses itself, with 429; Ray would let them wait.
        max_ongoing_requests=2 * limits.queue,
        graceful_shutdown_timeout_s=limits.timeout + GRACE,
        ray_actor_options={"num_cpus": workers * threads, "num_gpus": int(on_gpu)},
    )
    return deployment(serve.ingress(application)(Replica)).bind()


def checked(args: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments as what they are, with ``models`` as a list."""
    unknown = sorted(set(args) - set(ARGUMENTS))
    if unknown:
        raise ValueError(f"unknown argument {unknown[0]}; allowed: {', '.join(ARGUMENTS)}")
    given: dict[str, Any] = {}
    for name, value in args.items():
        if name == "models" or value is None:
            continue
        try:
            given[name] = ARGUMENTS[name](value)
        except (TypeError, ValueError) as error:
            kind = ARGUMENTS[name].__name__
            raise ValueError(f"{name} {value!r}; allowed: a value of type {kind}") from error
    models = args.get("models") or []
    given["models"] = models.split() if isinstance(models, str) else list(models)
    if not given["models"]:
        raise ValueError("models is empty; give exported files")
    if given.get("replicas", 1) < 1:
        raise ValueError(f"replicas {given['replicas']}; allowed: 1 or more")
    check_max_pixels(given.get("max_pixels", MAX_PIXELS))
    return given


def _make_app(given: Mapping[str, Any], limits: Limits) -> Starlette:
    """What a replica runs."""
    from .app import make_app
    from .service import Service, named

    options = {
        "num_threads": given.get("threads", 1),
        "score_thresh": given.get("threshold"),
        "device": given.get("device"),
        "max_pixels": given.get("max_pixels", MAX_PIXELS),
    }
    models = {
        name: functools.partial(Detector, path, **options)
        for name, path in named(given["models"]).items()
    }
    return make_app(
        Service(
            models,
            limits=limits,
            workers=given.get("workers", 1),
            threads=given.get("threads", 1),
            max_batch=given.get("max_batch", 1),
        )
    )
