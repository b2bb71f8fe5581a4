"""What a training promises of a GPU: it never waits, works under DDP, and finds its batch."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from unittest import mock

import common
import torch
import torch.distributed as dist
from detectron2.engine import default_argument_parser
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from train_step import make_step

from nanodet_d2.config import config_path
from nanodet_d2.engine import choose_batch_size, launch, main

from .equality import largest_difference, trainer_losses
from .report import FAILED, PASSED, Row, judged
from .setting import CONFIG, Setting, free_memory, gigabytes

ALONE = 1e-3  # largest relative difference of losses with and without the wrapper
VARIANTS: dict[str, tuple[bool, list[str]]] = {  # whether after detachment, and the overrides
    "with the auxiliary branch": (False, []),
    "guided by it": (True, ["model.aux_after_detach=guide"]),
    "without it": (True, ["model.aux_after_detach=drop"]),
    "in micro-batches": (False, ["model.micro_batches=2"]),
}


def no_waiting(setting: Setting) -> Iterator[Row]:
    """No step between two readings of the losses waits for the device."""
    batch = setting.batch(setting.sizes.compared)
    for name, (detached, overrides) in VARIANTS.items():
        step = make_step(setting.config(*overrides), batch, setting.device, detached=detached)
        yield _waits(f"a step {name} does not wait", step, setting)
    if setting.on_gpu:
        step = make_step(setting.config(), batch, setting.device, detached=False, amp=torch.float16)
        yield _waits("a step with a scaled loss does not wait", step, setting)


def _waits(name: str, step: Callable[[], None], setting: Setting) -> Row:
    if not setting.on_gpu:
        reads = common.host_reads(step)
        return judged(name, not reads, "; ".join(reads) or "no operator hands a value to the host")
    for _ in range(3):  # the first ones set up what stays
        step()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    except RuntimeError as error:
        return Row(name, FAILED, str(error).partition("\n")[0])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return Row(name, PASSED, 'torch.cuda.set_sync_debug_mode("error") found nothing')


def one_rank(setting: Setting) -> Iterator[Row]:
    """A training as torchrun starts it, and a step in torch's distributed wrapper."""
    yield _launched(setting)
    with _process_group(setting) as backend:
        batch = setting.batch(setting.sizes.compared)

        def wrap(model: nn.Module) -> nn.Module:
            # As engine.building.distribute has it, which leaves a process alone as it is.
            return DistributedDataParallel(model, device_ids=None, **setting.config().train.ddp)

        plain = trainer_losses(setting, batch, setting.device, steps=3)
        wrapped = trainer_losses(setting, batch, setting.device, steps=3, wrap=wrap)
        worst = largest_difference(wrapped, plain)
        yield judged(
            f"three steps in torch's DDP, {backend}, one rank, as without it",
            worst <= ALONE,
            f"total loss within {worst:.1e} (allowed: {ALONE:.0e})",
            losses=worst,
        )


def _launched(setting: Setting) -> Row:
    """Six steps on the drawn pictures, in a group of one process."""
    output = setting.folder / "one_rank"
    pictures = setting.pictures()
    names = [f"data.{split}.{k}={v}" for split, x in pictures.items() for k, v in x.items()]
    options = [*setting.sizes.overrides, *names, f"train.device={setting.device}"]
    options += [f"train.output_dir={output}", "train.max_iter=6", "train.eval_period=0"]
    options += [f"dataloader.train.total_batch_size={setting.sizes.batch}"]
    arguments = ["--config-file", str(config_path(CONFIG)), *options]
    with mock.patch.dict(os.environ, torchruns_variables()):
        launch(main, default_argument_parser().parse_args(arguments))
    done = (output / "model_final.pth").is_file()
    return judged(
        "six steps and an evaluation in a group of one process", done, "ended as it should"
    )


def torchruns_variables() -> dict[str, str]:
    """What torchrun tells the one process that it starts."""
    ones = {"WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return {**ones, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(s.getsockname()[1])}


@contextlib.contextmanager
def _process_group(setting: Setting) -> Iterator[str]:
    backend = "nccl" if setting.on_gpu else "gloo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield backend
    finally:
        dist.destroy_process_group()


def automatic_batch(setting: Setting) -> Iterator[Row]:
    """``total_batch_size=auto``: the batch it finds trains, within the memory there is."""
    name = "dataloader.train.total_batch_size=auto"
    half = ["train.amp.enabled=true", "train.amp.dtype=bfloat16"]
    cfg = setting.config(name, *half)
    if not setting.on_gpu:
        try:
            choose_batch_size(cfg)
        except ValueError as error:
            yield judged(name, "needs a GPU" in str(error), f"refused: {error}")
        return
    choose_batch_size(cfg)
    images = cfg.dataloader.train.total_batch_size
    free_memory(setting)
    allowed = cfg.train.auto_batch_memory * torch.cuda.mem_get_info()[0] / 1e9
    step = make_step(
        setting.config(*half),
        setting.batch(images),
        setting.device,
        detached=False,
        amp=torch.bfloat16,
    )
    for _ in range(3):
        step()
    torch.cuda.synchronize()
    used = gigabytes(setting)
    yield judged(
        name,
        used <= 1.1 * allowed,
        f"{images} images in bfloat16: steps took {used:.1f} GB; wanted at most {allowed:.1f}",
        images=images,
        gigabytes=used,
    )
