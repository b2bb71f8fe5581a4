"""What a resumed training needs to go on as if it had not been interrupted."""

from __future__ import annotations

import json
import logging
import os
import socket
from pathlib import Path
from typing import NamedTuple

from detectron2.utils import comm
from omegaconf import DictConfig
from torch import nn

from nanodet_d2.checkpoint import SafeCheckpointer, read_file, replace_file

from .budget import TimeBudget
from .ranks import on_all_ranks
from .start import StartHook

logger = logging.getLogger(__name__)

LOG_FILE = "metrics.json"  # of detectron2's JSONWriter


class ResumePoint(NamedTuple):
    """Where an interrupted training goes on."""

    checkpoint: str  # path
    steps: int  # that are done
    seed: int | None  # of the training; None if the checkpoint does not tell
    has_ema: bool
    has_start: bool  # of averages that are mixed with it
    budget: dict[str, float] | None = None  # of a training by time
    other_classes: bool = False  # than those of the weights that it started from


def find_resume_point(output_dir: str) -> ResumePoint | None:
    """The newest checkpoint that is whole, the same on all ranks; None, with a warning, without.

    The log of metrics is taken back to it.

    Raises:
        ValueError: if there are some, and all of them are damaged; if hosts see different folders.
        OSError, MemoryError, RuntimeError: if one cannot be read for another reason.
    """
    found = on_all_ranks(lambda: _find(output_dir) if comm.is_main_process() else None)[0]
    if found is None:
        _check_shared(output_dir, os.path.join(output_dir, "last_checkpoint"))
        logger.warning("No checkpoint in %s to resume from.", output_dir)
        return None
    path = os.path.join(output_dir, os.path.basename(found.checkpoint))  # as this host names it
    _check_shared(output_dir, path)
    return found._replace(checkpoint=path)


def _check_shared(output_dir: str, path: str) -> None:
    """All ranks see a file of the output folder, or none of them does."""
    seen = comm.all_gather((socket.gethostname(), os.path.isfile(path)))
    others = sorted({host for host, is_there in seen if is_there != seen[0][1]})
    if others:
        raise ValueError(
            f"train.output_dir={output_dir} on {', '.join(others)} is not that of {seen[0][0]}: "
            f"only one has {os.path.basename(path)}; to resume, hosts need to share the folder"
        )


def _find(output_dir: str) -> ResumePoint | None:
    path = SafeCheckpointer(nn.Module(), output_dir).newest_whole_checkpoint()
    if path is None:
        rewind_log(output_dir, 0)
        return None
    content = read_file(path)
    trainer = content.get("trainer", {})
    if "iteration" not in trainer:
        raise ValueError(f"{path} is no checkpoint of a training; found no 'trainer' in it")
    hooks = trainer.get("hooks", {})
    point = ResumePoint(
        path,
        trainer["iteration"] + 1,
        trainer.get("seed"),
        has_ema="ema" in content,
        has_start="ema_start" in content,
        budget=hooks.get(TimeBudget.__qualname__),
        other_classes=hooks.get(StartHook.__qualname__, {}).get("other_classes", False),
    )
    rewind_log(output_dir, point.steps)
    return point


def resolve_seed(cfg: DictConfig, resumed: ResumePoint | None) -> None:
    """Replace a negative ``train.seed``, in place: by the resumed one, else by a random one.

    It decides all that is random in a training, so that a resumed one has to know it.
    """
    saved = resumed.seed if resumed else None
    if cfg.train.seed < 0:
        cfg.train.seed = comm.shared_random_seed() if saved is None else saved
        logger.info("train.seed is %d", cfg.train.seed)
    elif saved not in (None, cfg.train.seed):
        logger.warning("train.seed is %d, and was %d before", cfg.train.seed, saved)


def rewind_log(output_dir: str, steps: int) -> None:
    """Drop the lines after so many steps, which are going to be written again, and a torn one.

    A line may tell of an earlier step than the one before it: of what was not logged since.
    """
    path = Path(output_dir) / LOG_FILE
    if not path.is_file():
        return
    kept = []
    for line in path.read_text().splitlines(keepends=True):
        try:
            iteration = json.loads(line)["iteration"]
        except (ValueError, KeyError):
            continue
        if iteration >= steps:
            break
        kept.append(line if line.endswith("\n") else line + "\n")
    replace_file(path, "".join(kept))
