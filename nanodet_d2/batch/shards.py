"""The files of shards: whole or not there, and named so that it shows whether they are right."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import logging
import os
import re
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .plan import Shard, digest

_NAME = re.compile(r"([0-9a-f]{20})-([0-9a-f]{20})\.jsonl")
_PART = ".part"
logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Written:
    """What is in a shard's file."""

    file: str
    rows: int
    unreadable: int
    detections: int


class ShardFiles:
    """A folder of ``RECIPE-CONTENT.jsonl``: a hash of what the rows follow from, and of the rows.

    A file that was torn or changed does not have its name's hash, so nothing has to be synchronised
    with the disk, and who finds a file knows that it is right.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def find(self, shards: Sequence[Shard]) -> dict[str, Written]:
        """What is there of some shards, by recipe; files that are not right are named and left."""
        by_recipe = {shard.recipe: shard for shard in shards}
        found = {}
        for path in sorted(self.folder.iterdir()):
            match = _NAME.fullmatch(path.name)
            shard = by_recipe.get(match[1]) if match else None
            if shard is None:
                continue
            data = path.read_bytes()
            try:
                if digest(data) != path.name.partition("-")[2].partition(".")[0]:
                    raise ValueError("its content is not what its name says")
                found[shard.recipe] = _written(path.name, shard, data)
            except ValueError as error:
                logger.warning("%s is made anew: %s", path, error)
        return found

    def write(self, shard: Shard, data: bytes) -> Written:
        """Write the rows of a shard.

        Raises:
            ValueError: if they are not those of its pictures, one for each, in their order.
            OSError: if they cannot be written.
        """
        written = _written(f"{shard.recipe}-{digest(data)}.jsonl", shard, data)
        write_whole(self.folder / written.file, data)
        return written

    def keep_only(self, written: Sequence[Written]) -> None:
        """Remove what other inputs, or a run that was cut off, have left here."""
        kept = {x.file for x in written}
        for path in self.folder.iterdir():
            ours = _NAME.fullmatch(path.name) or path.name.endswith(_PART)
            if ours and path.name not in kept:
                path.unlink()

    def rows(self, written: Written) -> Iterator[dict[str, Any]]:
        with open(self.folder / written.file, encoding="utf-8") as file:
            yield from map(json.loads, file)


def _written(file: str, shard: Shard, data: bytes) -> Written:
    rows = [json.loads(line) for line in data.splitlines()]
    names = [row["file_name"] for row in rows]
    if names != [item.name for item in shard.items()]:
        raise ValueError(
            f"{len(names)} rows that are not those of the {shard.count} pictures from "
            f"number {shard.first} on"
        )
    return Written(
        file,
        rows=len(rows),
        unreadable=sum(row["error"] is not None for row in rows),
        detections=sum(len(row["detections"]) for row in rows),
    )


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that under its name there is all of it or nothing."""
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}{_PART}")
    try:
        part.write_bytes(data)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for one run; what is killed lets go of it.

    Raises:
        ValueError: if another run has it.
    """
    with open(folder / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another run writes to {folder}") from None
        yield
