"""Where the GPU check runs, how large its parts are there, and the pictures it trains on."""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
from pathlib import Path
from typing import Any

import torch
from detectron2.config import LazyConfig
from omegaconf import DictConfig
from train_step import make_batch

from nanodet_d2.config import apply_overrides, config_path
from nanodet_d2.data.synthetic import make_shapes_dataset

CONFIG = "nanodet_plus/nanodet_plus_m_416.py"
BOXES = 7  # per image, COCO's mean

Batch = list[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much of everything; ``overrides`` are the config's."""

    overrides: tuple[str, ...]
    compared: int  # images of a step that is compared with another
    training: tuple[int, ...]  # batches that are measured
    inference: tuple[int, ...]
    seconds: float  # that a rate is measured for
    pictures: tuple[int, int]  # drawn for train and val
    val_repeats: int  # times that the evaluation sees each of val
    steps: int  # of the training that is to learn something
    batch: int  # of its images
    least_ap: float | None  # that it has to reach; None where it is too short to reach any


ON_A_GPU = Sizes(
    overrides=(),
    compared=8,
    training=(32, 64, 128, 256, 512),
    inference=(1, 8, 32, 128),
    seconds=1.5,
    pictures=(256, 64),
    val_repeats=16,
    steps=300,
    batch=64,
    least_ap=5.0,
)
# The same checks within a minute or two on two slow cores; their figures are of no use.
ON_A_CPU = Sizes(
    overrides=(
        "data.input_size=[96,96]",
        "model.backbone.size=0.5x",
        "model.neck.out_channels=32",
        "model.head.stacked_convs=1",
        "model.aux_head.stacked_convs=1",
    ),
    compared=2,
    training=(2, 4),
    inference=(1, 4),
    seconds=0.1,
    pictures=(24, 8),
    val_repeats=2,
    steps=30,
    batch=8,
    least_ap=None,
)


@dataclasses.dataclass(frozen=True)
class Setting:
    """A part of the check is given one.

    Args:
        device: "cuda" or "cpu".
        folder: for pictures and trainings.
        ends: of the part, in seconds of ``time.monotonic``.
    """

    device: str
    folder: Path
    ends: float

    @property
    def on_gpu(self) -> bool:
        return self.device.startswith("cuda")

    @property
    def sizes(self) -> Sizes:
        return ON_A_GPU if self.on_gpu else ON_A_CPU

    @property
    def seconds_left(self) -> float:
        return self.ends - time.monotonic()

    def config(self, *overrides: str) -> DictConfig:
        """NanoDet-Plus-m at 416 px with the drawn pictures as its data, on the device."""
        cfg = LazyConfig.load(str(config_path(CONFIG)))
        names = [
            f"data.{split}.{key}={path}"
            for split, paths in self.pictures().items()
            for key, path in paths.items()
        ]
        own = [*self.sizes.overrides, *names, f"train.device={self.device}"]
        return apply_overrides(cfg, [*own, *overrides])

    def pictures(self) -> dict[str, dict[str, str]]:
        """The drawn data set: made by the first call, found by later ones."""
        train, val = self.sizes.pictures
        size = self.config_size()
        return make_shapes_dataset(
            self.folder / "pictures", num_train=train, num_val=val, image_size=size
        )

    def config_size(self) -> int:
        """Height and width of the network's input, in pixels."""
        cfg = LazyConfig.load(str(config_path(CONFIG)))
        return int(apply_overrides(cfg, self.sizes.overrides).data.input_size[0])

    def batch(self, images: int) -> Batch:
        """So many random images; beyond 32 the same ones again, which costs the network as much."""
        size = self.config_size()
        drawn = make_batch(min(images, 32), BOXES, [size, size])
        return list(itertools.islice(itertools.cycle(drawn), images))


def repeated(split: dict[str, str], times: int, path: Path) -> Path:
    """A COCO file in which each image of another stands so many times, with its boxes."""
    content = json.loads(Path(split["json"]).read_text())
    images, annotations = [], []
    for round_ in range(times):
        first, number = 10**6 * round_, len(content["annotations"]) * round_
        images += [{**x, "id": first + x["id"]} for x in content["images"]]
        annotations += [
            {**x, "id": number + x["id"], "image_id": first + x["image_id"]}
            for x in content["annotations"]
        ]
    path.write_text(json.dumps({**content, "images": images, "annotations": annotations}))
    return path


def gigabytes(setting: Setting) -> float:
    """Most that torch has taken of the GPU's memory since the last reset; 0 on a CPU."""
    return torch.cuda.max_memory_reserved() / 1e9 if setting.on_gpu else 0.0


def free_memory(setting: Setting) -> None:
    """Hand back what is not in use any more, and count from there."""
    if setting.on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
