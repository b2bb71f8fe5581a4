"""Images per second of training: steps alone, compiled, and with the loader before them."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import common
import torch
from detectron2.config import LazyCall, instantiate
from train_step import make_step, make_trainer, take_step

from nanodet_d2.data import ImageCache

from .report import LEFT_OUT, MEASURED, Row
from .setting import Setting, free_memory, gigabytes

ENOUGH_S = 8.0  # a measurement that has less time left is not begun
LOADED_S = 15.0  # the same of one with a loader
COMPILE_S = 45.0  # and of one that is compiled first


class Mode(NamedTuple):
    """A way to train: its name, its precision, and the overrides of its config."""

    name: str
    amp: torch.dtype | None
    overrides: tuple[str, ...] = ()


PLAIN = Mode("float32", None)
HALF = Mode("bfloat16", torch.bfloat16)
MODES = (
    PLAIN,
    HALF,
    Mode("float16", torch.float16),
    Mode("bfloat16, not channels_last", torch.bfloat16, ("train.channels_last=false",)),
    Mode("bfloat16, branch dropped", torch.bfloat16, ("model.aux_after_detach=drop",)),
)
COMPILED = Mode("bfloat16, compiled", torch.bfloat16, ("train.compile.enabled=true",))


def steps(setting: Setting) -> Iterator[Row]:
    """Steps on images that lie in host memory, for each mode and batch until memory is out."""
    for mode in MODES:
        if mode.amp is torch.float16 and not setting.on_gpu:
            continue
        for images in setting.sizes.training:
            if setting.seconds_left < ENOUGH_S:
                yield _late(setting, mode.name, images)
                continue
            row = step_rate(setting, mode, images)
            yield row
            if "rate" not in row.figures:
                break  # a larger batch needs more


def compiled_steps(setting: Setting) -> Iterator[Row]:
    """The same, compiled: from the middle, for the second batch is compiled for any."""
    sizes = setting.sizes.training
    middle = len(sizes) // 2
    for images in dict.fromkeys((sizes[middle], sizes[-1], *sizes)):
        if setting.seconds_left < COMPILE_S:
            yield _late(setting, COMPILED.name, images)
        else:
            yield step_rate(setting, COMPILED, images)


def step_rate(setting: Setting, mode: Mode, images: int) -> Row:
    """Images per second, and memory, of a step with the auxiliary branch guiding it."""
    cfg = setting.config(*mode.overrides)

    def make() -> Callable[[], None]:
        batch = setting.batch(images)
        return make_step(cfg, batch, setting.device, detached=True, amp=mode.amp)

    return _rate(setting, mode.name, images, make)


def loaded_steps(setting: Setting) -> Iterator[Row]:
    """Steps on the drawn pictures by the training's loader, which keeps or reads them."""
    sizes = setting.sizes.training
    for images in dict.fromkeys((sizes[len(sizes) // 2], sizes[-1], sizes[0])):
        for kept in (True, False):
            pictures = "pictures in the cache" if kept else "pictures from files"
            for trains in (True, False):
                name = f"bfloat16, {pictures}" if trains else f"the loader alone, {pictures}"
                if setting.seconds_left < LOADED_S:
                    yield _late(setting, name, images)
                else:
                    yield loaded_rate(setting, name, images, kept=kept, trains=trains)


def loaded_rate(setting: Setting, name: str, images: int, *, kept: bool, trains: bool) -> Row:
    """Images per second of steps fed by the loader, or of the loader."""
    cfg = setting.config(f"dataloader.train.total_batch_size={images}", "train.seed=1")
    if kept:
        cfg.dataloader.train.cache = LazyCall(ImageCache)(storage="ram", gigabytes=8.0)
    loader = instantiate(cfg.dataloader.train)
    batches = iter(loader)
    # Each picture once, and then what the workers have made ahead: a full queue would be measured.
    waiting = len(loader.dataset) // images + 2 * loader.num_workers + 1

    def make() -> Callable[[], Any]:
        call = functools.partial(next, batches)
        if trains:
            trainer = make_trainer(cfg, batches, setting.device, detached=True, amp=HALF.amp)
            call = functools.partial(take_step, trainer)
        for _ in range(waiting):
            next(batches)
        return call

    try:
        return _rate(setting, name, images, make)
    finally:
        batches.close()  # ends its workers


def _rate(
    setting: Setting,
    name: str,
    images: int,
    make: Callable[[], Callable[[], Any]],
) -> Row:
    """Row of a call that ``make`` makes, and that takes so many images."""
    gc.collect()
    free_memory(setting)
    text, cell = _place(setting, name, images)
    try:
        rate = images * common.calls_per_second(
            make(), seconds=setting.sizes.seconds, device=setting.device
        )
    except torch.cuda.OutOfMemoryError:
        return Row(text, MEASURED, "out of memory", cell)
    memory = gigabytes(setting)
    taken = f" ({memory:.1f} GB)" if memory else ""
    return Row(text, MEASURED, f"{rate:.0f}{taken}", cell, {"rate": rate, "gigabytes": memory})


def _late(setting: Setting, name: str, images: int) -> Row:
    text, cell = _place(setting, name, images)
    return Row(text, LEFT_OUT, "no time", cell)


def _place(setting: Setting, name: str, images: int) -> tuple[str, tuple[str, str, str]]:
    """A measurement's name, and its cell."""
    title = f"training on {setting.device}, images/s"
    return f"{title}: {name}, batch {images}", (title, name, str(images))
