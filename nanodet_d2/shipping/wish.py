"""What is wanted of a file to ship."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from nanodet_d2.benchmark.decoding import Decoding

from .making import Size


@dataclasses.dataclass(frozen=True)
class Wish:
    """What is wanted; see the command's help.

    Attributes:
        json_file, images: a data set in COCO format.
        output: folder to write.
        max_ms: from an image to its boxes; any if None.
        max_ap_drop: below the model in PyTorch, in float32 and at its own input size.
        threads: of engines, torch and OpenCV.
        calibration: folder of pictures; without it there is no INT8.
        formats: all that there are if empty.
        sizes: (height, width) of inputs; some around the model's own if empty.
        others: files of other projects with what describes them, for comparison.
        rounds: of times, two or more.
    """

    json_file: Path
    images: Path
    output: Path
    max_ms: float | None = None
    max_ap_drop: float = 0.5
    threads: int = 2
    calibration: Path | None = None
    formats: tuple[str, ...] = ()
    sizes: tuple[Size, ...] = ()
    others: tuple[tuple[Path, Decoding], ...] = ()
    rounds: int = 7

    def check(self) -> None:
        """Raise ``ValueError`` or ``FileNotFoundError`` for what cannot be done."""
        for name, value, least in (("threads", self.threads, 1), ("rounds", self.rounds, 2)):
            if value < least:
                raise ValueError(f"{name} {value}; allowed: {least} or more")
        if self.max_ms is not None and not self.max_ms > 0:
            raise ValueError(f"max_ms {self.max_ms}; allowed: above 0")
        needed = [self.json_file, self.images, *(path for path, _ in self.others)]
        needed += [self.calibration] if self.calibration else []
        for path in needed:
            if not path.exists():
                raise FileNotFoundError(f"{path} not found")
