"""What data a training uses, in a line, and the file of a division that it has made."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from detectron2.utils import comm
from omegaconf import DictConfig

from .division import write_division
from .sources import evaluated_split, layout_of, source_of, summary
from .splits import class_names, registered_name

logger = logging.getLogger(__name__)

DIVISION_FILE = "split.json"
_NAMED = 12  # classes


def describe_data(data: Mapping[str, Any]) -> str:
    """Layout, splits and classes of a config's ``data``, in a line."""
    parts = []
    if data.get("source"):
        parts.append(f"{data['source']}: {layout_of(data).what}")
    for split in ("train", "val"):
        source = source_of(data, split)
        if source is None:
            parts.append(f"{split}: {registered_name(data, split)}, registered")
            continue
        facts = summary(source)
        parts.append(f"{_words(data, split)}: {facts.images} images, {facts.boxes} boxes")
    names = class_names(data)
    more = f", … ({len(names)} in all)" if len(names) > _NAMED else ""
    parts.append(f"classes: {', '.join(names[:_NAMED])}{more}")
    unused = "test is not used" if _has_unused_test(data) else ""
    return "; ".join(x for x in (*parts, unused) if x)


def _words(data: Mapping[str, Any], split: str) -> str:
    """The split, and what stands for it."""
    source = source_of(data, split)
    if source is not None and source.side:
        if source.rule.file:
            return f"{split} (by {source.rule.file})"
        return f"{split} ({_percent(data, split, source.rule.share)} of the images to train on)"
    if not data.get("source"):
        return split
    chosen = (data.get(split) or {}).get("split") or "train"
    if split == "val":
        chosen = evaluated_split(data, layout_of(data)) or "val"
    if chosen == "test":
        return "val (the test split: never trained on, but model_best is chosen on it)"
    return split if chosen == split else f"{split} (the split {chosen})"


def _percent(data: Mapping[str, Any], split: str, share: float) -> str:
    return f"{100 * (share if split == 'val' else 1 - share):.0f} %"


def _has_unused_test(data: Mapping[str, Any]) -> bool:
    if not data.get("source"):
        return False
    layout = layout_of(data)
    return "test" in layout.splits and evaluated_split(data, layout) != "test"


def settle_division(cfg: DictConfig, *, resume: bool) -> None:
    """Write down which images are kept for validation, where a config divides train, in place.

    The config then names the file, so that an evaluation, a resume or another training can have the
    same images, whatever is added to the folder.

    Args:
        cfg: of a training; ``data.split_file`` is set.
        resume: with a file that the training has written already.
    """
    data = cfg.get("data")
    val = source_of(data, "val") if data is not None and "val" in data else None
    if data is None or val is None or not val.side or val.rule.file:
        return
    path = os.path.abspath(os.path.join(cfg.train.output_dir, DIVISION_FILE))
    if comm.is_main_process() and not (resume and os.path.isfile(path)):
        train = source_of(data, "train")
        assert train is not None and train.side
        write_division(path, summary(train).names, summary(val).names)
        logger.info("Which images are kept for validation is written to %s", path)
    comm.synchronize()
    data.split_file = path
