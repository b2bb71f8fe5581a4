"""detectron2's checkpointer: files that are whole or not there, read without running anything."""

from __future__ import annotations

import itertools
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from .card import Card
from .faults import DamagedError
from .reading import CARD_KEY, read_file

logger = logging.getLogger(__name__)

FINAL = "model_final"  # name of a training's last checkpoint
_UNFINISHED = ".unfinished"  # suffix of a file while it is written
_DAMAGED = ".damaged"  # of one that was set aside


class SafeCheckpointer(DetectionCheckpointer):
    """Saves as detectron2 does, but never half a file, and resumes from its own files only.

    Args:
        model, save_dir, checkpointables: as in detectron2's.
        tag: a saved file becomes the one to resume from.
        card: what every file says about itself; nothing if None.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        tag: bool = True,
        card: Card | None = None,
        **checkpointables: Any,
    ):
        super().__init__(model, save_dir, **checkpointables)
        self.tag = tag
        self.card = card

    def save(self, name: str, **kwargs: Any) -> None:
        """Write ``name``.pth under another name, then rename it.

        Raises:
            RuntimeError: if it cannot be written, as on a full disk. Earlier files stay whole.
        """
        if self.save_dir and self.save_to_disk:
            self.write(name, {**self.content(), **kwargs})

    def content(self) -> dict[str, Any]:
        """What a checkpoint holds of the present state; tensors are those in use, no copies."""
        states = {key: x.state_dict() for key, x in self.checkpointables.items()}
        card = {CARD_KEY: self.card.to_dict()} if self.card is not None else {}
        return {"model": self.model.state_dict(), **states, **card}

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a checkpoint's content to ``name``.pth; raises as :meth:`save`."""
        path = Path(self.save_dir) / f"{name}.pth"
        logger.info("Saving checkpoint to %s", path)
        replace_file(path, dict(content))
        if self.tag:
            self.tag_last_checkpoint(path.name)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        replace_file(Path(self.save_dir) / "last_checkpoint", last_filename_basename)

    def newest_whole_checkpoint(self) -> str | None:
        """Path of the checkpoint to resume from; None if there is none.

        A file whose content is damaged is named, set aside, and the one before it is taken. What a
        killed process left unfinished is removed. To be called by one process only.

        Raises:
            ValueError: if there are checkpoints, but not one that is whole.
            OSError, MemoryError, RuntimeError, ValueError: if one cannot be read for another
                reason, such as a lack of memory; that one is not set aside.
        """
        for unfinished in Path(self.save_dir).glob(f"*{_UNFINISHED}"):
            unfinished.unlink()
        damaged = [x.name for x in Path(self.save_dir).glob(f"*{_DAMAGED}")]  # before this start
        for path in self._newest_first():
            _read_through(path)
            try:
                self._load_file(str(path))
            except DamagedError as error:
                aside = path.with_name(path.name + _DAMAGED)
                path.rename(aside)
                damaged.append(aside.name)
                logger.error("%s; set aside as %s", error, aside.name)
            else:
                return str(path)
        if damaged:
            raise ValueError(
                f"no checkpoint in {self.save_dir} can be resumed from; found "
                f"{', '.join(sorted(damaged))}"
            )
        return None

    def numbered_files(self) -> list[Path]:
        """The checkpoints that are named by their iteration, in its order."""
        files = Path(self.save_dir).glob("model_*.pth")
        return sorted(x for x in files if re.fullmatch(r"model_\d+", x.stem))

    def _newest_first(self) -> list[Path]:
        """The one last saved, then others by their age; the best are no place to resume from."""
        folder = Path(self.save_dir)
        tagged = self.get_checkpoint_file() if self.has_checkpoint() else ""
        others = [x for x in (folder / f"{FINAL}.pth", *self.numbered_files()) if x.is_file()]
        others.sort(key=lambda x: (x.stat().st_mtime_ns, x.name), reverse=True)
        return [
            x for x in dict.fromkeys([folder / os.path.basename(tagged), *others]) if x.is_file()
        ]

    def _load_file(self, filename: str) -> dict[str, Any]:
        content = read_file(filename)
        if not isinstance(content, dict) or "model" not in content:
            found = sorted(map(str, content)) if isinstance(content, dict) else type(content)
            raise DamagedError(f"cannot resume from {filename}: found {found}, needed: 'model'")
        return content


def set_aside_training(folder: str) -> Path | None:
    """Move an earlier training's checkpoints and logs into ``earlier_<n>``; None if there are none.

    Else a resume of the new training could go on with the earlier one.
    """
    patterns = ("model_*", "last_checkpoint", "metrics.json", "events.out.tfevents.*")
    files = [x for pattern in patterns for x in Path(folder).glob(pattern) if x.is_file()]
    if not files:
        return None
    numbers = (Path(folder) / f"earlier_{i}" for i in itertools.count(1))
    aside = next(x for x in numbers if not x.exists())
    aside.mkdir()
    for file in files:
        file.rename(aside / file.name)
    return aside


def _read_through(path: Path) -> None:
    """Tell a file that is damaged from one that a disk or a network does not give away."""
    try:
        with open(path, "rb") as file:
            while file.read(2**20):
                pass
    except OSError as error:
        raise OSError(f"{path} cannot be read ({error}); nothing was changed") from error


def replace_file(path: Path, content: Any) -> None:
    """Write text, bytes, or else what ``torch.save`` takes, so that no reader sees half of it.

    Raises:
        RuntimeError: if it cannot be written; what was at ``path`` is then still there.
    """
    unfinished = path.with_name(path.name + _UNFINISHED)
    try:
        with open(unfinished, "wb") as file:
            if isinstance(content, (str, bytes)):
                file.write(content.encode() if isinstance(content, str) else content)
            else:
                torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except (OSError, RuntimeError) as error:
        unfinished.unlink(missing_ok=True)
        raise RuntimeError(
            f"{path} could not be written ({_system_error(error)}); earlier files are untouched"
        ) from error


def _system_error(error: BaseException) -> BaseException:
    """The operating system's word on it, which torch may hide behind one of its own."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    return cause or error
