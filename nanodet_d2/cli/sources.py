"""What a verb's SOURCE may be: a name of the zoo, a config, a checkpoint, an exported file."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from nanodet_d2 import zoo

if TYPE_CHECKING:
    from nanodet_d2 import runtime

SOURCE = "SOURCE"
SOURCE_HELP = (
    "a name (see nanodet-d2 zoo), a checkpoint that a training wrote, a config, or an exported "
    "file. Configs and TorchScript files are programs: run only those that you trust"
)
NMS = ("plain", "voting")  # as runtime/checks.py has them
NMS_HELP = (
    "plain, or voting: boxes move to the mean of those that they suppress (default: the model's)"
)
CONFIG_HELP = "a config, or a name (see nanodet-d2 zoo)"
_INIT = "train.init_checkpoint="


def is_exported(source: str) -> bool:
    """Whether it is a file that ``nanodet_d2.runtime`` runs, by its name."""
    from nanodet_d2.runtime.backends import backends

    return any(backend.stem(source) is not None for backend in backends().values())


def weights_of(given: str | None) -> str | None:
    """The path of weights that may be given by a name; any other path or URL stays."""
    return zoo.weights(given) if given in zoo.names() else given


def with_weights(overrides: list[str]) -> list[str]:
    """Overrides with ``train.init_checkpoint=NAME`` replaced by the weights of that name."""
    return [
        f"{_INIT}{weights_of(x[len(_INIT) :])}" if x.startswith(_INIT) else x for x in overrides
    ]


@dataclasses.dataclass(frozen=True)
class Options:
    """How to open a detector; as ``Detector``'s."""

    num_threads: int | None = None
    score_thresh: float | None = None
    metadata: Path | None = None
    input_size: tuple[int, int] | None = None
    max_pixels: int | None = None
    nms: str | None = None
    device: str | None = None
    tiles: runtime.Tiles | None = None


def add_tiles(parser: argparse.ArgumentParser) -> None:
    """The options that :func:`tiles_of` reads."""
    add = parser.add_argument
    add("--tiles", type=int, metavar="SIZE", help="cut pictures into slices of so many pixels a "
        "side, e.g. 640, and merge what is found")  # fmt: skip
    add("--overlap", type=float, default=0.2, help="of the slices (default: %(default)s)")
    add("--levels", type=int, default=1, metavar="N", help="sizes of slices, each twice the one "
        "before (default: %(default)s)")  # fmt: skip
    add("--tiles-only", action="store_true", help="do not look at the whole picture as well")


def tiles_of(args: argparse.Namespace) -> runtime.Tiles | None:
    """What was asked for; None without ``--tiles``."""
    if args.tiles is None:
        return None
    from nanodet_d2.runtime import Tiles

    whole = not args.tiles_only
    return Tiles(size=args.tiles, overlap=args.overlap, whole=whole, levels=args.levels)


def open_detector(
    source: str, weights: str | None, overrides: list[str], options: Options
) -> runtime.Detector:
    """The detector of a source; torch is imported only where it computes.

    Raises:
        ValueError, ImportError, FileNotFoundError: as ``Detector``.
    """
    given = {k: v for k, v in vars(options).items() if v is not None}
    if is_exported(source):
        if weights is not None or overrides:
            raise ValueError(
                f"{source} has its own weights and no config; found --weights or key=value"
            )
        from nanodet_d2 import runtime

        return runtime.Detector(source, **given)
    from nanodet_d2.export.loading import load_model
    from nanodet_d2.predictor import Detector

    size = given.pop("input_size", None)
    loaded = load_model(source, weights_of(weights), input_size=size, overrides=overrides)
    return Detector(loaded, **given)
