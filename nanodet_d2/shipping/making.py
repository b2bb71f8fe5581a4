"""Writing the candidates' files, and their AP."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Optional

from nanodet_d2.benchmark.measure import average_precision
from nanodet_d2.export.loading import LoadedModel
from nanodet_d2.export.writer import export
from nanodet_d2.runtime import Detector
from nanodet_d2.runtime.backends import backend_of
from nanodet_d2.runtime.progress import progress

from .candidates import Candidate
from .record import Record

logger = logging.getLogger(__name__)

Size = tuple[int, int]
Load = Callable[[Optional[Size]], LoadedModel]  # the model at an input size; its own if None


def make_all(
    candidates: Sequence[Candidate],
    load: Load,
    record: Record,
    folder: Path,
    *,
    calibration: Path | None,
    data: tuple[Path, Path],
    threads: int,
) -> dict[str, str]:
    """Write and score what the record lacks.

    Args:
        candidates: size by size, so that each size's model is loaded once.
        folder: of the files.
        data: annotations in COCO format, and the folder of their pictures.

    Returns:
        why candidates are left out, by their names: those that cannot be written, or differ from
        PyTorch.
    """
    left_out: dict[str, str] = {}
    todo = [x for x in candidates if not _is_done(record.entry(x.name))]
    loaded: dict[Size, LoadedModel] = {}
    with progress(len(todo), unit="file") as bar, quiet():
        for x in todo:
            bar.set_postfix_str(x.name)
            entry = record.entry(x.name)
            try:
                if not _is_there(entry):
                    if x.size not in loaded:
                        loaded = {x.size: load(x.size)}
                    (written,) = export(loaded[x.size], x.job(folder, calibration))
                    entry.update(file=str(written.path), bytes=written.size)
                    record.save()
                detector = Detector(entry["file"], num_threads=threads)
                entry["ap"] = average_precision(detector, *data)
            except Exception as error:  # each converter and engine has its own
                left_out[x.name] = reason_of(error)
                del record.entries[x.name]
                logger.warning("Left out: %s: %s", x.name, left_out[x.name])
            record.save()
            bar.update()
    return left_out


def reason_of(error: Exception) -> str:
    """An error in one line."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else repr(error)


def files_of(path: Path) -> list[Path]:
    """Those of a model that are there: itself, its weights, its json."""
    return [x for x in backend_of(path).files(path) if x.exists()]


def _is_there(entry: dict) -> bool:
    return "file" in entry and backend_of(entry["file"]).is_there(entry["file"])


def _is_done(entry: dict) -> bool:
    return "ap" in entry and _is_there(entry)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what detectron2, the export and NNCF say of each file."""
    loggers = [logging.getLogger(x) for x in ("detectron2", "nanodet_d2.export", "nncf")]
    before = [x.level for x in loggers]
    for x in loggers:
        x.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for x, level in zip(loggers, before):
            x.setLevel(level)
