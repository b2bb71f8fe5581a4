"""A training that is cut off and resumed ends with the bits of one that was not."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from detectron2.utils.env import seed_all_rng

from nanodet_d2.checkpoint import FINAL, read_file
from nanodet_d2.engine import train

from .report import Row, judged
from .setting import Setting

STEPS, KEPT = 8, 4  # of the training, and of the part that is left of it


def exact_resume(setting: Setting) -> Iterator[Row]:
    """``train.deterministic``, loader workers and mixed precision included."""
    whole, cut = setting.folder / "whole", setting.folder / "cut"
    _run(setting, whole, resume=False)
    shutil.copytree(whole, cut)
    for file in cut.glob("*.pth"):
        if file.name != f"model_{KEPT - 1:07d}.pth":
            file.unlink()
    (cut / "last_checkpoint").unlink()
    _run(setting, cut, resume=True)
    difference = first_difference(final_checkpoint(cut), final_checkpoint(whole))
    yield judged(
        f"{STEPS} steps, cut off after {KEPT} and resumed, as in one go",
        not difference,
        difference or "weights, averages and the optimiser's state are the same bits",
    )


def _run(setting: Setting, output: Path, *, resume: bool) -> None:
    seed_all_rng(1)  # as detectron2's default_setup does
    cfg = setting.config(
        f"train.output_dir={output}",
        f"train.max_iter={STEPS}",
        f"train.checkpointer.period={KEPT}",
        "train.eval_period=0",
        "train.log_period=2",
        "train.seed=1",
        "train.deterministic=true",
        "train.amp.enabled=true",
        "train.amp.dtype=bfloat16",
        f"dataloader.train.total_batch_size={setting.sizes.batch}",
        "dataloader.train.num_workers=1",
    )
    train(cfg, resume=resume)


def final_checkpoint(folder: Path) -> dict[str, Any]:
    """The last one, without the one thing that differs: the folder, which its card tells."""
    content = read_file(str(folder / f"{FINAL}.pth"))
    card = content["card"]
    content["card"] = {**card, "name": "", "config": card["config"].replace(str(folder), "")}
    return content


def first_difference(a: Any, b: Any, where: str = "") -> str:
    """Where two nested contents differ first, in order; empty if they are the same bits.

    NaN is the same as NaN.
    """
    if isinstance(a, dict) and isinstance(b, dict):
        if a.keys() != b.keys():
            return f"{where}: keys {sorted(map(str, a.keys() ^ b.keys()))}"
        pairs = [(f"{where}.{key}", a[key], b[key]) for key in a]
    elif isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        if len(a) != len(b):
            return f"{where}: {len(a)} and {len(b)} entries"
        pairs = [(f"{where}[{i}]", x, y) for i, (x, y) in enumerate(zip(a, b))]
    elif isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return "" if torch.equal(a, b) else f"{where}: {_difference(a, b)}"
    else:
        return "" if a == b or (a != a and b != b) else f"{where}: {a} and {b}"
    return next(filter(None, (first_difference(x, y, at) for at, x, y in pairs)), "")


def _difference(a: torch.Tensor, b: torch.Tensor) -> str:
    if a.shape != b.shape:
        return f"shapes {tuple(a.shape)} and {tuple(b.shape)}"
    return f"by {float((a.double() - b.double()).abs().max()):.1e}"
