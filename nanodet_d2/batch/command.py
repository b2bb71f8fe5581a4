"""A whole run: list, cut, share out, check, and write what was asked for."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nanodet_d2.runtime.progress import progress

from .coco import FILE as COCO
from .coco import write_coco
from .items import Item, list_items
from .local import Made, run_local
from .on_ray import require_ray, run_ray
from .parquet import FOLDER as PARQUET
from .parquet import require_pyarrow, write_parquet
from .plan import Shard, plan
from .review import most_uncertain, write_review
from .shards import ShardFiles, Written, locked, write_whole
from .stores import is_remote
from .work import Work, require_same

FORMATS, ENGINES = ("jsonl", "coco", "parquet"), ("local", "ray")
SHARD_SIZE = 128  # pictures: seconds of work, and a hundred kilobytes or so of rows
HEADER, INDEX, SHARDS = "header.json", "index.json", "shards"
logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Wish:
    """What is wanted; see the command's help.

    Attributes:
        inputs: paths and addresses, as ``list_items`` takes them.
        output: folder.
        formats: some of ``FORMATS``; there are always the shards, which are jsonl.
        engine: one of ``ENGINES``.
        workers: processes at a time; as many as there are CPUs for if None.
        address: of a Ray cluster.
        shard_size: pictures of a shard.
        review: how many pictures to propose for labelling.
    """

    inputs: Sequence[str]
    output: Path
    formats: Sequence[str] = ("jsonl",)
    engine: str = "local"
    workers: int | None = None
    address: str | None = None
    shard_size: int = SHARD_SIZE
    review: int = 0


def detect_all(work: Work, wish: Wish) -> dict[str, Any]:
    """Detect in all pictures, or in those that an earlier run of the same into that folder lacks.

    Into the folder go ``header.json`` (what the rows follow from: hashes of the model and of its
    contract, versions, settings), ``shards/`` (a line of json for each picture), at the end
    ``index.json`` (the shards in the order of the pictures, and how many there are of each kind),
    and what was asked for besides. The bytes of all of them are the same whatever the engine, the
    number of workers, and how often a run was cut off.

    Returns:
        what was done, in numbers and paths.

    Raises:
        ValueError, FileNotFoundError, ImportError: for what cannot be done, before anything is.
        RuntimeError: if the model fails at picture after picture, or a row is missing.
    """
    _require(wish)
    detector = work.open()
    work = work.described(detector)
    max_pixels, class_names = detector.max_pixels, detector.class_names
    del detector  # each process opens its own
    shards = list(plan(list_items(wish.inputs), wish.shard_size, work.key))
    wish.output.mkdir(parents=True, exist_ok=True)
    with locked(wish.output):
        _begin(wish.output, work)
        files = ShardFiles(wish.output / SHARDS)
        written = files.find(shards)
        todo = [shard for shard in shards if shard.recipe not in written]
        _make(files, shards, todo, written, work, wish)
        ordered = _complete(shards, written)
        files.keep_only(ordered)
        facts = _summary(wish.output, ordered)
        facts["computed"] = sum(shard.count for shard in todo)
        facts["files"] = _write_formats(wish, files, ordered, work, class_names)
        if wish.review:
            facts |= _review(wish, files, ordered, shards, class_names, max_pixels)
    return facts


def _require(wish: Wish) -> None:
    for name in wish.formats:
        if name not in FORMATS:
            raise ValueError(f"format {name!r}; allowed: {', '.join(FORMATS)}")
    if wish.engine not in ENGINES:
        raise ValueError(f"engine {wish.engine!r}; allowed: {', '.join(ENGINES)}")
    if wish.review < 0:
        raise ValueError(f"review {wish.review}; allowed: 0 or more")
    if wish.workers is not None and wish.workers < 1:
        raise ValueError(f"workers {wish.workers}; allowed: 1 or more")
    if wish.address is not None and wish.engine != "ray":
        raise ValueError(f"a cluster's address with engine {wish.engine!r}; allowed with: ray")
    output = wish.output.resolve()
    for folder in (Path(x) for x in wish.inputs if not is_remote(x)):
        if folder.is_dir() and folder.resolve() in (output, *output.parents):
            raise ValueError(f"{wish.output} lies in {folder}, whose pictures are read")
    if "parquet" in wish.formats:
        require_pyarrow()
    if wish.engine == "ray":
        require_ray()


def _begin(output: Path, work: Work) -> None:
    """Write the header, or see that the one that is there is the same."""
    path = output / HEADER
    if path.is_file():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is not json ({error}): choose another --output") from error
        require_same(work.header, found, f"what is asked for in {output}")
    for name in (INDEX, COCO):  # an earlier run's, which would pass for this one's
        (output / name).unlink(missing_ok=True)
    shutil.rmtree(output / PARQUET, ignore_errors=True)
    for part in output.glob("*.part"):  # of one that was cut off
        shutil.rmtree(part) if part.is_dir() else part.unlink()
    _write_json(path, work.header)


def _make(
    files: ShardFiles,
    shards: Sequence[Shard],
    todo: Sequence[Shard],
    written: dict[str, Written],
    work: Work,
    wish: Wish,
) -> None:
    """Have the rows of shards made, and write each as it comes; ``written`` grows."""
    total, left = sum(x.count for x in shards), sum(x.count for x in todo)
    if left < total:
        logger.info("%d of %d pictures are there from an earlier run", total - left, total)
    if not todo:
        return
    with progress(total, unit="picture") as bar:
        bar.update(total - left)
        for shard, data in _engine(todo, work, wish):
            written[shard.recipe] = files.write(shard, data)
            bar.update(shard.count)


def _engine(todo: Sequence[Shard], work: Work, wish: Wish) -> Iterator[Made]:
    if wish.engine == "ray":
        return run_ray(todo, work, workers=wish.workers, address=wish.address)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    workers = wish.workers or max(1, (cores or 1) // work.threads)
    return run_local(todo, work, workers=workers)


def _complete(shards: Sequence[Shard], written: dict[str, Written]) -> list[Written]:
    """The files of all shards in order.

    Raises:
        RuntimeError: if there is not a row for each picture.
    """
    missing = [x for x in shards if x.recipe not in written]
    rows, total = sum(x.rows for x in written.values()), sum(x.count for x in shards)
    if missing or rows != total:
        raise RuntimeError(
            f"{rows} rows of {total} pictures, {len(missing)} shards are missing; run it again"
        )
    return [written[shard.recipe] for shard in shards]


def _summary(output: Path, written: Sequence[Written]) -> dict[str, Any]:
    """Write the index; returns the numbers in it."""
    facts: dict[str, Any] = {
        "pictures": sum(x.rows for x in written),
        "unreadable": sum(x.unreadable for x in written),
        "detections": sum(x.detections for x in written),
    }
    _write_json(output / INDEX, {**facts, "shards": [dataclasses.asdict(x) for x in written]})
    return {**facts, "shards": len(written), "output": str(output)}


def _write_formats(
    wish: Wish,
    files: ShardFiles,
    written: Sequence[Written],
    work: Work,
    class_names: Sequence[str],
) -> list[str]:
    paths = [str(files.folder)]
    if "coco" in wish.formats:
        rows = functools.partial(_rows, files, written)
        paths.append(str(write_coco(wish.output, class_names, rows, work.header)))
    if "parquet" in wish.formats:
        paths.append(str(write_parquet(wish.output, files, written, work.header)))
    return paths


def _rows(files: ShardFiles, written: Sequence[Written]) -> Iterator[dict[str, Any]]:
    return itertools.chain.from_iterable(map(files.rows, written))


def _review(
    wish: Wish,
    files: ShardFiles,
    written: Sequence[Written],
    shards: Sequence[Shard],
    class_names: Sequence[str],
    max_pixels: int,
) -> dict[str, Any]:
    chosen = most_uncertain(_rows(files, written), wish.review)
    items: dict[int, Item] = {}
    wanted = {number for _, number, _ in chosen}
    for shard in shards:
        if any(shard.first <= number < shard.first + shard.count for number in wanted):
            items.update(enumerate(shard.items(), shard.first))
    pictures = [(doubt, items[number], row) for doubt, number, row in chosen]
    path = write_review(wish.output, pictures, class_names, max_pixels=max_pixels)
    return {"review": str(path), "to_label": len(pictures)}


def _write_json(path: Path, content: Any) -> None:
    write_whole(path, (json.dumps(content, indent=1) + "\n").encode())
