"""Images that cannot be used in training: replaced by others, counted and listed.

Samples are made in worker processes, so each carries the note of what was replaced in it, and the
loader reads the notes where the batches arrive.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np

from nanodet_d2.runtime.images import ImageError, printable

logger = logging.getLogger(__name__)

# Keys of a sample:
NOTE = "replaced_images"  # path -> why, of the images that it was not made of
GIVEN_UP = "given_up"  # why there is no more to it than the note
_NAMED = 20  # images that an error names; the file names all
_DRAWS = 100  # all of them broken: it may be the disk


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

    def given_up(self, error: ImageError) -> dict[str, Any]:
        """In place of a sample, which nothing was found for.

        Not the error itself: it would end the training before what is broken is listed, and a
        worker process could tell no more than its text.
        """
        return self.note({GIVEN_UP: f"{_DRAWS} drawn in turn, the last: {error}"})

    def note(self, sample: dict[str, Any]) -> dict[str, Any]:
        """The sample with a note of what was replaced since the last one."""
        replaced, self._replaced = self._replaced, {}
        return {**sample, NOTE: replaced} if replaced else sample


class BrokenImages:
    """The list of images that were replaced in a training.

    The file is what the ranks of a training, and the training before and after a resume, know of
    each other: an image of the data set that is in it counts, whoever met it.

    Args:
        images: paths of the data set, one per record.
        max_share: of them that may be broken.
        file: gets a line per image, ``path<TAB>why``, both ``printable``, as soon as it is met.
            None for none: each process counts for itself then.

    Raises:
        ValueError: for a ``max_share`` outside 0 to 1.
    """

    def __init__(self, images: Collection[str], max_share: float, file: str | None = None):
        if not 0 <= max_share <= 1:
            raise ValueError(f"max_broken_share {max_share}; allowed: 0 to 1")
        self.num_images = len(images)
        self.max_share = max_share
        self.file = file
        self.reasons: dict[str, str] = {}
        self._images = frozenset(map(printable, images))
        self._read()

    def take_notes(self, batch: list[dict[str, Any]]) -> None:
        """Remove the samples' notes and list what they say.

        Only a note makes it judge the share: a list that was left after a repair stops nothing.

        Raises:
            ValueError: if more than the share is broken; the message lists the images.
            ImageError: if a sample was given up: there may be no images at all.
        """
        notes: dict[str, str] = {}
        for sample in batch:
            for path, reason in sample.pop(NOTE, {}).items():
                notes[printable(str(path))] = printable(reason)
        if not notes:
            return
        if not notes.keys() <= self.reasons.keys():
            self._read()  # what other ranks have met since
            self._add({k: v for k, v in notes.items() if k not in self.reasons})
        if len(self.reasons) > self.max_share * self.num_images:
            raise ValueError(self._too_many())
        for sample in batch:
            if GIVEN_UP in sample:
                raise ImageError(f"no image can be used of {sample[GIVEN_UP]}{self._where()}")

    def _read(self) -> None:
        file = None if self.file is None else Path(self.file)
        lines = file.read_text("utf-8", "replace").splitlines() if file and file.is_file() else []
        for path, _, reason in (line.partition("\t") for line in lines):
            if path in self._images:
                self.reasons.setdefault(path, reason)

    def _add(self, notes: dict[str, str]) -> None:
        for path, reason in notes.items():
            self.reasons[path] = reason
            logger.warning(
                "Image %s cannot be used and is replaced by another: %s (%d of %d images so far)",
                path,
                reason,
                len(self.reasons),
                self.num_images,
            )
        if self.file is None or not notes:
            return
        os.makedirs(os.path.dirname(self.file) or ".", exist_ok=True)
        with open(self.file, "a", encoding="utf-8") as file:  # one write: whole lines
            file.write("".join(f"{path}\t{reason}\n" for path, reason in notes.items()))

    def _too_many(self) -> str:
        named = ", ".join(list(self.reasons)[:_NAMED])
        more = len(self.reasons) - _NAMED
        return (
            f"{len(self.reasons)} of the {self.num_images} training images cannot be used; "
            f"allowed: a share of {self.max_share:g} (dataloader.train.max_broken_share). "
            f"They are {named}{f', … and {more} more' if more > 0 else ''}" + self._where()
        )

    def _where(self) -> str:
        return f"; listed in {self.file}, to be deleted after their repair" if self.file else ""
