"""Images that cannot be used in training: replaced by others, counted and listed.

Samples are made in worker processes, so each carries the note of what was replaced in it, and the
loader reads the notes where the batches arrive.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .images import ImageError

logger = logging.getLogger(__name__)

NOTE = "replaced_images"  # key of a sample: path -> why, of the images that it was not made of
_NAMED = 20  # images that an error names; the file names all
_DRAWS = 100  # all of them broken: it is the disk


class Replacer:
    """Makes samples of other images where one cannot be used, and notes it on the sample.

    Other images are drawn from NumPy's global random state, which is the sample's own. So a sample
    stays the same whatever the number of workers, before and after a resume.

    Args:
        num_images: of the data set.
    """

    def __init__(self, num_images: int):
        self.num_images = num_images
        self._replaced: dict[str, str] = {}

    def __call__(self, make: Callable[[int], dict[str, Any]], index: int) -> dict[str, Any]:
        """``make(index)``, or of another index.

        Raises:
            ImageError: if the images of that many draws are broken, one after the other.
        """
        for _ in range(_DRAWS):
            try:
                return make(index)
            except ImageError as error:
                self._replaced[error.path] = error.reason
                last = error
                index = np.random.randint(self.num_images)
        raise last

    def note(self, sample: dict[str, Any]) -> dict[str, Any]:
        """The sample with a note of what was replaced since the last one."""
        replaced, self._replaced = self._replaced, {}
        return {**sample, NOTE: replaced} if replaced else sample


class BrokenImages:
    """The list of images that were replaced in a training.

    Args:
        num_images: of the data set.
        max_share: of them that may be broken.
        file: gets a line per image, ``path<TAB>why``, as soon as it is met. What it holds already
            (of a training that is resumed, or of another process) is not repeated. None for none.

    Raises:
        ValueError: for a ``max_share`` outside 0 to 1.
    """

    def __init__(self, num_images: int, max_share: float, file: str | None = None):
        if not 0 <= max_share <= 1:
            raise ValueError(f"max_broken_share {max_share}; allowed: 0 to 1")
        self.num_images = num_images
        self.max_share = max_share
        self.file = file
        self.reasons: dict[str, str] = {}

    def take_notes(self, batch: list[dict[str, Any]]) -> None:
        """Remove the samples' notes and list what they say.

        Raises:
            ValueError: if more than the share is broken; the message lists the images.
        """
        for sample in batch:
            for path, reason in sample.pop(NOTE, {}).items():
                if path not in self.reasons:
                    self._add(path, reason)
        if len(self.reasons) > self.max_share * self.num_images:
            named = ", ".join(list(self.reasons)[:_NAMED])
            more = len(self.reasons) - _NAMED
            raise ValueError(
                f"{len(self.reasons)} of the {self.num_images} training images cannot be used; "
                f"allowed: a share of {self.max_share:g} (dataloader.train.max_broken_share). "
                f"They are {named}{f', … and {more} more' if more > 0 else ''}"
                + (f"; the list with reasons: {self.file}" if self.file else "")
            )

    def _add(self, path: str, reason: str) -> None:
        self.reasons[path] = reason
        logger.warning(
            "Image %s cannot be used and is replaced by another: %s (%d of %d images so far)",
            path,
            reason,
            len(self.reasons),
            self.num_images,
        )
        if self.file is None or path in self._listed():
            return
        os.makedirs(os.path.dirname(self.file) or ".", exist_ok=True)
        with open(self.file, "a", encoding="utf-8") as file:  # one write: whole lines
            file.write(f"{path}\t{reason}\n")

    def _listed(self) -> set[str]:
        file = Path(self.file)
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        return {line.partition("\t")[0] for line in lines}
