"""Models by name, after detectron2's ``model_zoo``: configs, weights and published figures.

    zoo.get("nanodet-plus-m-416", trained=True)

Importing this imports nothing heavy; only what builds a model or fetches weights does.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from nanodet_d2.modeling import NanoDetPlus

FOLDER = "NANODET_D2_WEIGHTS"  # environment variable: a folder of weights, looked into first
_RELEASE = "https://github.com/RangiLyu/nanodet/releases/download/v1.0.0-alpha-1/"
_README = "https://github.com/RangiLyu/nanodet#readme"
_MODEL_ZOO = "https://github.com/RangiLyu/nanodet#model-zoo"  # its links are for browsers


@dataclasses.dataclass(frozen=True)
class Entry:
    """What is known of a model.

    Attributes:
        name: by which it is found.
        config: of the package, see ``nanodet_d2.config.config_path``.
        files: names of its weights' file. The first one is fetched.
        input_size: height and width of the network's input, pixels.
        parameters: of the network that detects.
        training_parameters: with the auxiliary branch.
        ap: on COCO val2017, published by ``source``, not measured here.
        gflops: published likewise.
        source: of the figures.
        licence: of the weights, as of the project that published them.
        url: folder of the weights; empty where a program cannot fetch them.
        finetune_config: name of the config that trains it further on another data set.
    """

    name: str
    config: str
    files: tuple[str, ...]
    input_size: int
    parameters: int
    training_parameters: int
    ap: float
    gflops: float
    source: str = _README
    licence: str = "Apache-2.0"
    url: str = _RELEASE
    finetune_config: str | None = None

    @property
    def weights_url(self) -> str:
        """Of the weights' file, or of the page that has a link to it."""
        return self.url + self.files[0] if self.url else _MODEL_ZOO

    @property
    def config_file(self) -> Path:
        """Path of the config."""
        from nanodet_d2.config import config_path

        return config_path(self.config)

    def facts(self) -> dict[str, Any]:
        """All of it by name, for people and for json."""
        return {
            "name": self.name,
            "config": self.config,
            "input": f"{self.input_size} x {self.input_size}",
            "parameters": self.parameters,
            "in training": self.training_parameters,
            "GFLOPs": self.gflops,
            "AP": self.ap,
            "AP on": f"COCO val2017, published by {self.source}",
            "weights": self.weights_url,
            "licence": self.licence,
        }


def _plus(name: str, size: int, count: int, training: int, ap: float, gflops: float) -> Entry:
    """A NanoDet-Plus, as the reference names its files."""
    config = f"nanodet_plus/{name.replace('-', '_').replace('.', '_')}_{size}.py"
    files = (f"{name}_{size}_checkpoint.ckpt", f"{name}_{size}.pth")
    finetune = config.replace("nanodet_plus_m", "finetune")
    return Entry(
        *(f"{name}-{size}", config, files, size, count, training, ap, gflops),
        finetune_config=finetune,
    )


def _legacy(name: str, size: int, count: int, ap: float, gflops: float) -> Entry:
    """A model from before NanoDet-Plus, without parameters that nothing uses."""
    stem = f"{name.replace('-', '_').replace('.', '_')}_{size}"
    files = (f"{stem}.pth", f"{stem}.ckpt")
    config = f"nanodet/{stem}.py"
    return Entry(f"{name}-{size}", config, files, size, count, count, ap, gflops, url="")


_ENTRIES = {
    entry.name: entry
    for entry in (
        _plus("nanodet-plus-m", 320, 1_197_924, 4_330_904, ap=27.0, gflops=0.9),
        _plus("nanodet-plus-m", 416, 1_197_924, 4_330_904, ap=30.4, gflops=1.52),
        _plus("nanodet-plus-m-1.5x", 320, 2_477_792, 7_962_196, ap=29.9, gflops=1.75),
        _plus("nanodet-plus-m-1.5x", 416, 2_477_792, 7_962_196, ap=34.1, gflops=2.97),
        _legacy("nanodet-m", 320, 950_036, ap=20.6, gflops=0.72),
        _legacy("nanodet-m", 416, 950_036, ap=23.5, gflops=1.2),
        _legacy("nanodet-m-0.5x", 320, 271_056, ap=13.5, gflops=0.3),
        _legacy("nanodet-m-1.5x", 320, 2_065_392, ap=23.5, gflops=1.44),
        _legacy("nanodet-m-1.5x", 416, 2_065_392, ap=26.8, gflops=2.42),
        _legacy("nanodet-g", 416, 3_788_628, ap=22.9, gflops=4.2),
        _legacy("nanodet-t", 320, 1_331_508, ap=21.7, gflops=0.96),
        _legacy("nanodet-efficientnet-lite0", 320, 3_099_824, ap=24.7, gflops=1.72),
        _legacy("nanodet-efficientnet-lite1", 416, 3_994_740, ap=30.3, gflops=4.06),
        _legacy("nanodet-efficientnet-lite2", 512, 4_689_460, ap=32.6, gflops=7.12),
        _legacy("nanodet-repvgg-a0", 416, 7_387_380, ap=27.8, gflops=11.3),
    )
}


def names() -> list[str]:
    """Of all models."""
    return list(_ENTRIES)


def entry(name: str) -> Entry:
    """What is known of a model.

    Raises:
        ValueError: for an unknown name; the message lists those there are.
    """
    if name not in _ENTRIES:
        close = difflib.get_close_matches(name, _ENTRIES, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else "."
        raise ValueError(f"no model {name!r}{hint} There are: {', '.join(_ENTRIES)}")
    return _ENTRIES[name]


def table() -> str:
    """All models as a table for a terminal."""
    rows = [("name", "input", "parameters", "GFLOPs", "AP, published", "licence")]
    rows += [
        (x.name, str(x.input_size), f"{x.parameters:,}", f"{x.gflops:g}", f"{x.ap:.1f}", x.licence)
        for x in _ENTRIES.values()
    ]
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows
    )


def get_config(name: str) -> DictConfig:
    """A model's lazy config.

    Raises:
        ValueError: as :func:`entry`.

    Example:
        >>> from nanodet_d2 import zoo
        >>> config = zoo.get_config("nanodet-plus-m-416")
        >>> config.optimizer.lr = 5e-4
    """
    from nanodet_d2 import config

    return config.get_config(entry(name).config)


def get(name: str, *, trained: bool = False, device: str | None = None) -> NanoDetPlus:
    """A model, in training mode, as ``detectron2.model_zoo.get`` gives it.

    Args:
        trained: with its official weights, else with random ones.
        device: the CPU if None.

    Raises:
        ValueError: as :func:`entry` and :func:`weights`.

    Example:
        >>> import torch
        >>> from nanodet_d2 import zoo
        >>> model = zoo.get("nanodet-plus-m-416", trained=True).eval()
        >>> image = torch.zeros(3, 416, 416)  # BGR, 0 to 255
        >>> model([{"image": image, "height": 416, "width": 416}])[0]["instances"]
    """
    from detectron2.config import instantiate

    from nanodet_d2.checkpoint import load_weights

    model = instantiate(get_config(name).model)
    if trained:
        load_weights(model, weights(name), require_all=True)
    return model.to(device or "cpu")


def weights(name: str) -> str:
    """Path of a model's official weights.

    They are looked for in the folder that the environment variable ``NANODET_D2_WEIGHTS`` names,
    else in the cache, into which they are fetched once. Their checksum is written down there, and
    compared each time.

    Raises:
        ValueError: for an unknown name, weights that cannot be fetched, or that have changed since.
    """
    found = entry(name)
    folder = os.environ.get(FOLDER)
    for file in found.files if folder else ():
        path = Path(str(folder)).expanduser() / file
        if path.is_file():
            return str(path)

    if not found.url:
        raise ValueError(
            f"the weights of {name} cannot be fetched by a program; {found.weights_url} has a "
            f"link. Put {' or '.join(found.files)} into a folder, and name that folder by {FOLDER}"
        )
    from nanodet_d2.checkpoint.fetching import local_path

    try:
        return local_path(found.weights_url)
    except ValueError as error:
        raise ValueError(
            f"{error}. Without a network: put {' or '.join(found.files)} into a folder, and name "
            f"that folder by {FOLDER}"
        ) from error
